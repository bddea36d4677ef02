/** One question about several images, from a file and from memory: `npx tsx examples/several-images.ts cat.jpg coffee.jpg` */
import { readFile } from "node:fs/promises";
import { type ImageInput, MiniGPT4 } from "minigpt4";

const [first = "examples/images/cat.jpg", second = "examples/images/coffee.jpg", name = "nano"] = process.argv.slice(2);

const model = await MiniGPT4.load(name);
const chat = model.chat({ system: "You compare images." });
const images: ImageInput[] = [first, await readFile(second)];
for await (const text of chat.ask("What do the two images have in common?", { images })) process.stdout.write(text);
console.log();
await model.close();
