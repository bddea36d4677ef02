/** Stops an answer after its first sentence, or on Ctrl-C: `npx tsx examples/cancel.ts cat.jpg` */
import { MiniGPT4 } from "minigpt4";

const [image = "examples/images/cat.jpg", name = "nano"] = process.argv.slice(2);

const model = await MiniGPT4.load(name);
const chat = model.chat();
const stopping = new AbortController();
process.once("SIGINT", () => stopping.abort());

let answer = "";
try {
  for await (const text of chat.ask("What do you see?", { images: [image], signal: stopping.signal })) {
    process.stdout.write(text);
    answer += text;
    // To stop listening is to stop the model.
    if (/[.!?]\s/.test(answer)) break;
  }
} catch (error) {
  if (!stopping.signal.aborted) throw error;
}

// A question that was not answered to its end leaves the conversation as it was before.
console.log(`\n(${chat.history.length} turns in the conversation)`);
await model.close();
