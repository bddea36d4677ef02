/** Describes the images of a folder, one JSON object a line: `npx tsx examples/describe-folder.ts FOLDER > images.jsonl` */
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { MiniGPT4, RequestError } from "minigpt4";

const [folder = "examples/images", name = "nano"] = process.argv.slice(2);

const model = await MiniGPT4.load(name);
for (const file of (await readdir(folder)).sort()) {
  if (!/\.(jpe?g|png|webp|gif|tiff?|avif)$/i.test(file)) continue;
  try {
    console.log(JSON.stringify({ file, description: await model.describe(join(folder, file)) }));
  } catch (error) {
    // A damaged image should not end the whole run.
    if (!(error instanceof RequestError)) throw error;
    console.error(error.message);
  }
}
await model.close();
