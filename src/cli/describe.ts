/** `minigpt4 describe`: what images show. */
import type { Command } from "commander";
import type { AnswerOptions } from "../chat/conversation.ts";
import type { MiniGPT4 } from "../chat/minigpt4.ts";
import { RequestError } from "../engine/engine.ts";
import { type AnswerFlags, addAnswerOptions, answerOptions, loadModel, untilInterrupted } from "./options.ts";
import { explain, printable, readable } from "./text.ts";

interface DescribeFlags extends AnswerFlags {
  readonly json?: boolean;
}

export function registerDescribe(program: Command): void {
  const command = program
    .command("describe")
    .summary("say what images show")
    .description(
      "Says what images show, one line each. An image that cannot be read is reported, and the others are still described.",
    )
    .argument("<image...>", "image files (JPEG, PNG, WebP, GIF, TIFF, AVIF, SVG)")
    .option("--json", 'one JSON object a line: {"image", "description", "seconds"} or {"image", "error"}');
  addAnswerOptions(command)
    .addHelpText(
      "after",
      `
Examples:
  minigpt4 describe cat.jpg
  minigpt4 describe holiday/*.jpg --json > holiday.jsonl
  minigpt4 describe cat.jpg --temperature 0.8 --top-p 0.9 --seed 7`,
    )
    .action(describe);
}

async function describe(images: readonly string[], flags: DescribeFlags): Promise<void> {
  const signal = untilInterrupted();
  const model = await loadModel(flags, signal);
  try {
    for (const image of images) {
      const result = await describeOne(model, image, { ...answerOptions(flags), signal });
      if ("error" in result) {
        process.exitCode = 1;
        console.error(`error: ${printable(result.error)}`);
      }
      if (flags.json) console.log(JSON.stringify(result));
      else if ("description" in result) {
        const line = oneLine(result.description);
        console.log(images.length > 1 ? `${printable(image)}: ${line}` : line);
      }
    }
  } finally {
    await model.close();
  }
}

type Described =
  | { readonly image: string; readonly description: string; readonly seconds: number }
  | { readonly image: string; readonly error: string };

/** The description, or what went wrong. @throws the signal's reason when it is aborted */
export async function describeOne(model: MiniGPT4, image: string, options: AnswerOptions): Promise<Described> {
  const started = performance.now();
  try {
    const description = await model.describe(image, options);
    return { image, description, seconds: Math.round(performance.now() - started) / 1000 };
  } catch (error) {
    options.signal?.throwIfAborted();
    return {
      image,
      error: error instanceof RequestError && error.code === "image" ? error.message : `${image}: ${explain(error)}`,
    };
  }
}

export function oneLine(description: string): string {
  return readable(description.replace(/\s+/g, " "));
}
