/** Describes the images of a folder, one JSON object per line: `npx tsx examples/describe-folder.ts FOLDER > images.jsonl` */
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { MiniGPT4, RequestError } from "minigpt4";

const [folder = "examples/images", name = "nano"] = process.argv.slice(2);

const files = (await readdir(folder)).filter((file) => /\.(jpe?g|png|webp|gif|tiff?|avif)$/i.test(file)).sort();

await using model = await MiniGPT4.load(name);
for (const file of files) {
  try {
    console.log(JSON.stringify({ file, description: await model.describe(join(folder, file)) }));
  } catch (error) {
    // Skip a damaged image, and continue with the others.
    if (!(error instanceof RequestError)) throw error;
    console.error(error.message);
  }
}
