/** Options that several commands share, and how their values are checked. */
import { type Command, InvalidArgumentError, Option } from "commander";
import type { AnswerOptions } from "../chat/conversation.ts";
import { type LoadOptions, MiniGPT4 } from "../chat/minigpt4.ts";
import type { EngineOptions } from "../engine/load-engine.ts";
import { precisions } from "../generation/language-model.ts";
import { devices } from "../runtime/environment.ts";
import { type Recipe, readRecipe } from "../training/recipe.ts";
import { downloadDisplay } from "./progress.ts";

/** What `addModelOptions` and `addAnswerOptions` leave in a command's options. */
export interface ModelFlags {
  readonly model: string;
  readonly device: NonNullable<LoadOptions["device"]>;
  readonly precision?: LoadOptions["precision"];
}

export interface AnswerFlags extends ModelFlags {
  readonly beams?: number;
  readonly temperature?: number;
  readonly topP?: number;
  readonly topK?: number;
  readonly repetitionPenalty?: number;
  readonly maxNewTokens?: number;
  readonly seed?: number;
}

/** A parser for a number between two bounds, both included. */
export function numberBetween(low: number, high: number): (text: string) => number {
  return (text) => {
    const value = text.trim() === "" ? Number.NaN : Number(text);
    if (value >= low && value <= high) return value;
    throw new InvalidArgumentError(`It should be a number between ${low} and ${high}.`);
  };
}

/** A parser for a whole number between two bounds, both included. */
export function integerBetween(low: number, high: number): (text: string) => number {
  return (text) => {
    const value = text.trim() === "" ? Number.NaN : Number(text);
    if (Number.isInteger(value) && value >= low && value <= high) return value;
    throw new InvalidArgumentError(`It should be a whole number between ${low} and ${high}.`);
  };
}

/** `--model`, `--device` and `--precision`. */
export function addModelOptions(command: Command): Command {
  return command
    .option("--model <name>", "a model that comes with the package or was pulled, or a model folder", "nano")
    .addOption(new Option("--device <device>", "where to compute").choices(devices).default("auto"))
    .addOption(
      new Option(
        "--precision <type>",
        "of the language model's matrices (default: as the model folder says, else float32)",
      ).choices(precisions),
    );
}

/** The model's options, and how an answer is searched for. Without any of these, always the likeliest token is taken. */
export function addAnswerOptions(command: Command): Command {
  return addModelOptions(command)
    .addOption(
      new Option("--beams <n>", "search for the best of n answers")
        .argParser(integerBetween(1, 32))
        .conflicts(["temperature", "topP", "topK"]),
    )
    .option("--temperature <t>", "draw the next token; higher is more varied", numberBetween(0, 10))
    .option("--top-p <p>", "draw among the likeliest tokens of this probability", numberBetween(0, 1))
    .option("--top-k <k>", "draw among the k likeliest tokens", integerBetween(1, 1_000_000))
    .option("--repetition-penalty <r>", "above 1, said words become less likely", numberBetween(0.1, 10))
    .option("--max-new-tokens <n>", "longest answer", integerBetween(1, 1999))
    .option("--seed <s>", "the same seed draws the same answer", integerBetween(0, 2 ** 32 - 1));
}

/** Whoever asks for top-p or top-k wants to draw: the temperature is 1 then, unless it was given. */
export function answerOptions(flags: AnswerFlags): AnswerOptions {
  const draws = flags.topP !== undefined || flags.topK !== undefined;
  return {
    numBeams: flags.beams,
    temperature: flags.temperature ?? (draws ? 1 : 0),
    topP: flags.topP,
    topK: flags.topK,
    repetitionPenalty: flags.repetitionPenalty,
    maxNewTokens: flags.maxNewTokens,
    seed: flags.seed,
  };
}

// What commands that take a recipe have in common.

/** `--set`, which every command that takes a recipe has. */
export function settingsOption(): Option {
  return new Option("--set <key=value>", "replace a value of the recipe; can be given several times")
    .argParser((value: string, before: readonly string[]) => [...before, value])
    .default([]);
}

/** A recipe with its settings; says on standard error which keys were left aside. */
export async function openRecipe(path: string, settings: readonly string[]): Promise<Recipe> {
  const { recipe, ignored } = await readRecipe(path, settings);
  if (ignored.length > 0) process.stderr.write(`Left aside, without meaning here: ${ignored.join(", ")}\n`);
  return recipe;
}

// Loading a model for a command.

/** The model that the options name; what has to be fetched for it is shown on standard error. */
export async function loadModel(
  { model, device, precision }: ModelFlags,
  signal: AbortSignal,
  options: EngineOptions = {},
): Promise<MiniGPT4> {
  const { onProgress, stop } = downloadDisplay();
  try {
    const loaded = await MiniGPT4.load(model, { ...options, device, precision, pull: { onProgress, signal } });
    // Left alone, the model's thread would hold up the end of the process.
    if (signal.aborted) await loaded.close();
    signal.throwIfAborted();
    return loaded;
  } finally {
    stop();
  }
}

// Ctrl-C.

/** Thrown where work was stopped by Ctrl-C. */
export class Interrupted extends Error {
  override name = "Interrupted";
}

/** What a shell reports of a program that was ended by Ctrl-C. */
export const interruptedExitCode = 130;

/** A signal for the work of a command: the first Ctrl-C lets it stop and clean up, the second ends the process at once. */
export function untilInterrupted(): AbortSignal {
  const controller = new AbortController();
  process.on("SIGINT", () => {
    if (controller.signal.aborted) process.exit(interruptedExitCode);
    controller.abort(new Interrupted("Interrupted"));
  });
  return controller.signal;
}

// `--project`, which every step has.

export interface ProjectFlags {
  readonly project: string;
}

export function projectOption(): Option {
  return new Option("--project <file>", "the project").default("curation.db");
}
