/** Stops an answer after its first sentence, or on Ctrl-C: `npx tsx examples/cancel.ts cat.jpg` */
import { MiniGPT4 } from "minigpt4";

const [image = "examples/images/cat.jpg", name = "nano"] = process.argv.slice(2);

await using model = await MiniGPT4.load(name);
const chat = model.chat();
const controller = new AbortController();
process.once("SIGINT", () => controller.abort());

let answer = "";
try {
  for await (const text of chat.ask("What do you see?", { images: [image], signal: controller.signal })) {
    process.stdout.write(text);
    answer += text;
    // Leaving the loop cancels the generation.
    if (/[.!?]\s/.test(answer)) break;
  }
} catch (error) {
  if (!controller.signal.aborted) throw error;
}

// A cancelled question is not part of the conversation.
console.log(`\n(${chat.history.length} turns in the conversation)`);
