/** `minigpt4 describe`: describes images, one line each. */
import type { Command } from "commander";
import type { AnswerOptions } from "../chat/conversation.ts";
import type { MiniGPT4 } from "../chat/minigpt4.ts";
import { describeError, printable } from "../files/errors.ts";
import type { CommandContext } from "./context.ts";
import { type AnswerFlags, addAnswerOptions, answerOptions, loadModel } from "./options.ts";
import { oneLine } from "./text.ts";

interface DescribeFlags extends AnswerFlags {
  readonly json?: boolean;
}

export function defineDescribe(command: Command, context: CommandContext): void {
  command
    .description(
      "Describe images, one line each. An image that cannot be read is reported, and the others are still described.",
    )
    .argument("<image...>", "image files (JPEG, PNG, WebP, GIF, TIFF, AVIF, SVG)")
    .option("--json", 'print one JSON object per line: {"image", "description", "seconds"} or {"image", "error"}');
  addAnswerOptions(command, context)
    .addHelpText(
      "after",
      `
Examples:
  minigpt4 describe cat.jpg
  minigpt4 describe holiday/*.jpg --json > holiday.jsonl
  minigpt4 describe cat.jpg --temperature 0.8 --top-p 0.9 --seed 7`,
    )
    .action((images, flags) => describe(context, images, flags));
}

async function describe(context: CommandContext, images: readonly string[], flags: DescribeFlags): Promise<void> {
  const signal = context.untilInterrupted();
  const model = await loadModel(context, flags, { signal });
  try {
    for (const image of images) {
      const result = await describeImage(model, image, { ...answerOptions(flags), signal });
      if ("error" in result) {
        context.fail();
        context.printError(`error: ${printable(result.error)}`);
      }
      if (flags.json) context.print(JSON.stringify(result));
      else if ("description" in result) {
        const line = oneLine(result.description);
        context.print(images.length > 1 ? `${printable(image)}: ${line}` : line);
      }
    }
  } finally {
    await model.close();
  }
}

type ImageDescription =
  | { readonly image: string; readonly description: string; readonly seconds: number }
  | { readonly image: string; readonly error: string };

/** Describes an image, or returns what went wrong. @throws the signal's reason when it is aborted */
export async function describeImage(model: MiniGPT4, image: string, options: AnswerOptions): Promise<ImageDescription> {
  const { RequestError } = await import("../errors.ts");
  const started = performance.now();
  try {
    const description = await model.describe(image, options);
    return { image, description, seconds: Math.round(performance.now() - started) / 1000 };
  } catch (error) {
    options.signal?.throwIfAborted();
    // Errors about an image name it already.
    const namesImage = error instanceof RequestError && error.code === "invalid_image";
    return { image, error: namesImage ? error.message : `${image}: ${describeError(error)}` };
  }
}
