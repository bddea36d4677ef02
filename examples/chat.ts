/** A conversation, in which each question is understood with all that was said before: `npx tsx examples/chat.ts cat.jpg` */
import { MiniGPT4 } from "minigpt4";

const [image = "examples/images/cat.jpg", name = "nano"] = process.argv.slice(2);

const model = await MiniGPT4.load(name);
const chat = model.chat();

async function ask(question: string, images: string[] = []): Promise<void> {
  process.stdout.write(`\n> ${question}\n`);
  for await (const text of chat.ask(question, { images })) process.stdout.write(text);
}

await ask("What is in the image?", [image]);
await ask("What colour is it?");
await ask("Tell a story about it in two sentences.");

console.log("\n\nWhat was said:");
for (const { role, text } of chat.history) console.log(`${role}: ${text}`);
await model.close();
