/** Describes several images in one batch, and asks about all of them: `npx tsx examples/several-images.ts cat.jpg coffee.jpg` */
import { readFile } from "node:fs/promises";
import { type ImageInput, MiniGPT4 } from "minigpt4";

const [first = "examples/images/cat.jpg", second = "examples/images/coffee.jpg", name = "nano"] = process.argv.slice(2);

// An image is a path, or its bytes.
const images: ImageInput[] = [first, await readFile(second)];

await using model = await MiniGPT4.load(name);
for (const description of await model.describe(images)) console.log(description);

const chat = model.chat({ system: "You compare images." });
const { text } = await chat.answer("What do the two images have in common?", { images });
console.log(text);
