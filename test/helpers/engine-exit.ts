/** Ends its process with code 7 in the midst of an answer: `exit.ts MODEL MILLISECONDS`, counted from the first text. */
import { ProcessEngine } from "../../src/engine/process-engine.ts";

const [model = "", milliseconds = "0"] = process.argv.slice(2);
const engine = await ProcessEngine.load(model, "tiny");
const question = { turns: [{ role: "user", text: "Go on" }], images: [], maxNewTokens: 400, temperature: 1 } as const;
for (let seed = 0; ; seed++) {
  for await (const event of engine.generate({ ...question, seed })) {
    if (event.kind !== "text" || seed > 0) continue;
    console.log("answering");
    setTimeout(() => process.exit(7), Number(milliseconds));
  }
}
