/** Loads a model, asks it something or nothing, and forgets to release it: `forget.ts MODEL QUESTIONS`. */
import { ProcessEngine } from "../../src/engine/process-engine.ts";

const [model = "", questions = "0"] = process.argv.slice(2);
const engine = await ProcessEngine.load(model, "tiny");
const question = { turns: [{ role: "user", text: "Go on" }], images: [], maxNewTokens: 4 } as const;
for (let asked = 0; asked < Number(questions); asked++) for await (const _ of engine.generate(question));
