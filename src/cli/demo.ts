/** `minigpt4 demo`: describes the example images, to show that the model works. */
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Command } from "commander";
import type { CommandContext } from "./context.ts";
import { describeImage } from "./describe.ts";
import { addModelOptions, loadModel, type ModelFlags } from "./options.ts";
import { oneLine } from "./text.ts";

const imageFolder = fileURLToPath(new URL("../../examples/images/", import.meta.url));

export function defineDemo(command: Command, context: CommandContext): void {
  command.description("Describe the example images. The language model is downloaded first if it is not cached.");
  addModelOptions(command, context)
    .addHelpText("after", "\nExamples:\n  minigpt4 demo\n  minigpt4 demo --model minigpt4-7b")
    .action((flags) => demo(context, flags));
}

async function demo(context: CommandContext, flags: ModelFlags): Promise<void> {
  const images = (await readdir(imageFolder)).filter((name) => /\.(jpe?g|png|webp)$/.test(name)).sort();
  const signal = context.untilInterrupted();
  context.print(`Loading the model "${flags.model}" ...`);
  const started = performance.now();
  const model = await loadModel(context, flags, { signal });
  try {
    context.print(`Loaded in ${((performance.now() - started) / 1000).toFixed(1)} s.\n`);
    const width = Math.max(...images.map((name) => name.length));
    for (const name of images) {
      const result = await describeImage(model, join(imageFolder, name), { signal });
      if ("error" in result) throw new Error(result.error);
      context.print(`${name.padEnd(width)}  ${oneLine(result.description)}  (${result.seconds.toFixed(1)} s)`);
    }
  } finally {
    await model.close();
  }
  const command = context.env.npm_lifecycle_event === "demo" ? "npm run minigpt4 --" : "npx minigpt4";
  context.print(`
The images are in ${imageFolder}

Next steps:
  ${command} describe IMAGE...   describe your own images
  ${command} chat IMAGE          chat about an image
  ${command} --help              list all commands`);
}
