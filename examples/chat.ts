/** A conversation: each question is answered in the context of all earlier ones: `npx tsx examples/chat.ts cat.jpg` */
import { MiniGPT4, type QuestionOptions } from "minigpt4";

const [image = "examples/images/cat.jpg", name = "nano"] = process.argv.slice(2);

await using model = await MiniGPT4.load(name);
const chat = model.chat();

async function ask(question: string, options?: QuestionOptions): Promise<void> {
  process.stdout.write(`\n> ${question}\n`);
  for await (const text of chat.ask(question, options)) process.stdout.write(text);
}

await ask("What is in the image?", { images: [image] });
await ask("What colour is it?");

// `answer` waits for the whole text, and returns why it ended and the number of tokens.
const { text, finishReason, usage } = await chat.answer("Tell a story about it in two sentences.", {
  maxNewTokens: 80,
});
console.log(`\n\n${text}\n(${finishReason}: ${usage.completionTokens} tokens, ${usage.cachedTokens} from the cache)`);

console.log("\nHistory:");
for (const { role, text } of chat.history) console.log(`${role}: ${text}`);
