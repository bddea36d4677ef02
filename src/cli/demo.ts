/** `minigpt4 demo`: describes the example images, so that a newcomer sees the model work. */
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Command } from "commander";
import { describeOne, oneLine } from "./describe.ts";
import { addModelOptions, loadModel, type ModelFlags, untilInterrupted } from "./options.ts";

const imageFolder = fileURLToPath(new URL("../../examples/images/", import.meta.url));

export function registerDemo(program: Command): void {
  addModelOptions(program.command("demo").summary("describe the example images"))
    .description("Describes the example images. The language model is fetched first if it is not in the cache yet.")
    .action(demo);
}

async function demo(flags: ModelFlags): Promise<void> {
  const images = (await readdir(imageFolder)).filter((name) => /\.(jpe?g|png|webp)$/.test(name)).sort();
  const signal = untilInterrupted();
  console.log(`Loading the model "${flags.model}" and its language model ...`);
  const started = performance.now();
  const model = await loadModel(flags, signal);
  try {
    console.log(`Ready after ${((performance.now() - started) / 1000).toFixed(1)} s.\n`);
    const width = Math.max(...images.map((name) => name.length));
    for (const name of images) {
      const result = await describeOne(model, join(imageFolder, name), { signal });
      if ("error" in result) throw new Error(result.error);
      console.log(`${name.padEnd(width)}  ${oneLine(result.description)}  (${result.seconds.toFixed(1)} s)`);
    }
  } finally {
    await model.close();
  }
  const command = process.env.npm_lifecycle_event === "demo" ? "npm run minigpt4 --" : "npx minigpt4";
  console.log(`
The images are in ${imageFolder}
What next?
  ${command} describe IMAGE...   your own images
  ${command} chat IMAGE          a conversation about one
  ${command} --help                everything else`);
}
