/** One question about several pictures, from a file and from memory: `npx tsx examples/several-pictures.ts cat.jpg coffee.jpg` */
import { readFile } from "node:fs/promises";
import { MiniGPT4, type Picture } from "minigpt4";

const [first = "examples/pictures/cat.jpg", second = "examples/pictures/coffee.jpg", name = "nano"] =
  process.argv.slice(2);

const model = await MiniGPT4.load(name);
const chat = model.chat({ system: "You compare pictures." });
const images: Picture[] = [first, await readFile(second)];
for await (const text of chat.ask("What do the two pictures have in common?", { images })) process.stdout.write(text);
console.log();
await model.release();
