/** Options that several commands share, and how their values are checked. */

import { type Command, InvalidArgumentError, Option } from "commander";
import type { AnswerOptions } from "../chat/conversation.ts";
import type { LoadOptions, MiniGPT4 } from "../chat/minigpt4.ts";
import type { EngineOptions } from "../engine/load-engine.ts";
import type { Device } from "../runtime/environment.ts";
import type { BlockSize } from "../tensor/quant/blocks.ts";
import type { Quantization } from "../tensor/quant/quantization.ts";
import type { Recipe } from "../training/recipe.ts";
import type { CommandContext } from "./context.ts";
import { ProgressDisplay } from "./progress.ts";

// Repeated here, since their modules load the runtime, which the help does not need.
const devices: readonly Device[] = ["auto", "cpu", "cuda", "webgpu", "dml", "coreml"];
const quantizations = ["native", "float32", "int4"] as const;
const blockSizes = ["32", "64", "128"] as const;

/** The values of `addModelOptions`. */
export interface ModelFlags {
  readonly model: string;
  readonly device: NonNullable<LoadOptions["device"]>;
  readonly quantization?: (typeof quantizations)[number];
  readonly blockSize?: (typeof blockSizes)[number];
}

/** The values of `addAnswerOptions`. */
export interface AnswerFlags extends ModelFlags {
  readonly beams?: number;
  readonly temperature?: number;
  readonly topP?: number;
  readonly topK?: number;
  readonly repetitionPenalty?: number;
  readonly maxNewTokens?: number;
  readonly seed?: number;
}

/** A parser for a number in `[low, high]`. */
export function numberBetween(low: number, high: number): (text: string) => number {
  return (text) => {
    const value = text.trim() === "" ? Number.NaN : Number(text);
    if (value >= low && value <= high) return value;
    throw new InvalidArgumentError(`Expected a number between ${low} and ${high}.`);
  };
}

/** A parser for an integer in `[low, high]`. */
export function integerBetween(low: number, high: number): (text: string) => number {
  return (text) => {
    const value = text.trim() === "" ? Number.NaN : Number(text);
    if (Number.isInteger(value) && value >= low && value <= high) return value;
    throw new InvalidArgumentError(`Expected an integer between ${low} and ${high}.`);
  };
}

/** `--model`, `--device`, `--quantization` and `--block-size`. */
export function addModelOptions(command: Command, context: CommandContext): Command {
  command
    .option("--model <name>", "name of a bundled or pulled model, or path of a model folder", "nano")
    .addOption(deviceOption())
    .addOption(
      withDeprecatedValues(
        new Option(
          "--quantization <type>",
          "quantization of the language model's matrices: native is as its file stores them (default: the model folder's, else float32)",
        ).choices(quantizations),
        context,
        { stored: "native" },
      ),
    )
    .addOption(
      new Option(
        "--block-size <n>",
        "with int4: round all matrices to blocks of n elements (default: keep the blocks of the file, else 32)",
      ).choices(blockSizes),
    );
  // It had a block size in one of its values.
  const old = new Option("--precision <type>").hideHelp();
  return command.addOption(old).on(`option:${old.name()}`, (value: string) => {
    context.warnOnce("warning: --precision is deprecated; use --quantization, and --block-size for int4");
    const emitter = command as Command & NodeJS.EventEmitter;
    emitter.emit("option:quantization", value === "int4-128" ? "int4" : value);
    if (value === "int4-128") emitter.emit("option:block-size", "128");
  });
}

/** The quantization that the options name. @throws InvalidArgumentError if a block size is given without int4 */
export function quantizationFlag({
  quantization,
  blockSize,
}: Pick<ModelFlags, "quantization" | "blockSize">): Quantization | undefined {
  if (!blockSize) return quantization;
  if (quantization !== "int4") throw new InvalidArgumentError("--block-size needs --quantization int4.");
  return { bits: 4, blockSize: Number(blockSize) as BlockSize };
}

/** The model's options, and those of generation. Without any of these, decoding is greedy. */
export function addAnswerOptions(command: Command, context: CommandContext): Command {
  return addModelOptions(command, context)
    .addOption(
      new Option("--beams <n>", "beam search with n beams (default: greedy decoding)")
        .argParser(integerBetween(1, 32))
        .conflicts(["temperature", "topP", "topK"]),
    )
    .option(
      "--temperature <t>",
      "sampling temperature; 0 is greedy (default: 0, or 1 with --top-p or --top-k)",
      numberBetween(0, 10),
    )
    .option(
      "--top-p <p>",
      "sample from the most likely tokens whose probabilities sum to p (default: 1)",
      numberBetween(0, 1),
    )
    .option("--top-k <k>", "sample from the k most likely tokens (default: all)", integerBetween(1, 1_000_000))
    .option("--repetition-penalty <r>", "penalty for repeated tokens; 1 is none (default: 1)", numberBetween(0.1, 10))
    .option("--max-new-tokens <n>", "maximum length of an answer in tokens (default: 300)", integerBetween(1, 1999))
    .option("--seed <s>", "random seed of sampling, for reproducible answers", integerBetween(0, 2 ** 32 - 1));
}

/** Generation options; `--top-p` and `--top-k` turn on sampling, with temperature 1 unless it is given. */
export function answerOptions(flags: AnswerFlags): AnswerOptions {
  const samples = flags.topP !== undefined || flags.topK !== undefined;
  return {
    numBeams: flags.beams,
    temperature: flags.temperature ?? (samples ? 1 : 0),
    topP: flags.topP,
    topK: flags.topK,
    repetitionPenalty: flags.repetitionPenalty,
    maxNewTokens: flags.maxNewTokens,
    seed: flags.seed,
  };
}

/** `--device`, for commands that compute. */
export function deviceOption(): Option {
  return new Option("--device <device>", "device to compute on").choices(devices).default("auto");
}

/** `--set`, for commands that take a recipe. */
export function settingsOption(): Option {
  return new Option("--set <key=value>", "override a value of the recipe (repeatable)")
    .argParser((value: string, previous: readonly string[]) => [...previous, value])
    .default([]);
}

/** Reads a recipe with its settings. Keys that this project ignores are listed on standard error. */
export async function openRecipe(context: CommandContext, path: string, settings: readonly string[]): Promise<Recipe> {
  const { readRecipe } = await import("../training/recipe.ts");
  const { recipe, ignored, deprecated } = await readRecipe(path, settings);
  if (ignored.length > 0) context.printError(`Ignored keys (not used in this recipe): ${ignored.join(", ")}`);
  for (const message of deprecated) context.warnOnce(`warning: ${path}: ${message}`);
  return recipe;
}

/** Loads the model that the options name. Downloads are shown on standard error. */
export async function loadModel(
  context: CommandContext,
  { model, device, ...flags }: ModelFlags,
  { signal, ...options }: EngineOptions & { readonly signal: AbortSignal },
): Promise<MiniGPT4> {
  const { MiniGPT4 } = await import("../chat/minigpt4.ts");
  const display = new ProgressDisplay(context);
  try {
    const pull = { onProgress: display.download, signal };
    const loaded = await MiniGPT4.load(model, { ...options, device, quantization: quantizationFlag(flags), pull });
    // Left open, the model's process would keep this one alive.
    if (signal.aborted) await loaded.close();
    signal.throwIfAborted();
    return loaded;
  } finally {
    display.stop();
  }
}

export interface ProjectFlags {
  readonly project: string;
}

/** `--project`, for the steps of a curation. */
export function projectOption(): Option {
  return new Option("--project <file>", "project file").default("curation.db");
}

/**
 * Keeps the old name of an option working: it is hidden from the help, and prints the new name on standard error.
 * @param flags the old flags as commander takes them, for example `--layout <name>`
 * @param replacement the new option, which is defined already, for example `--format`
 */
export function addDeprecatedOption(
  command: Command,
  context: CommandContext,
  { flags, replacement }: { readonly flags: string; readonly replacement: `--${string}` },
): Command {
  const option = new Option(flags).hideHelp();
  command.addOption(option);
  return command.on(`option:${option.name()}`, (value: string | null) => {
    context.warnOnce(`warning: ${option.long} is deprecated; use ${replacement}`);
    // The new option parses the value, with its own error messages.
    (command as Command & NodeJS.EventEmitter).emit(`option:${replacement.slice(2)}`, value);
  });
}

/** Keeps old values of an option working, which prints the new value on standard error. */
export function withDeprecatedValues(
  option: Option,
  context: CommandContext,
  values: Readonly<Record<string, string>>,
): Option {
  const { parseArg } = option;
  return option.argParser((value: string, previous: unknown) => {
    const replacement = values[value];
    if (replacement === undefined) return parseArg?.(value, previous);
    context.warnOnce(`warning: ${option.long} ${value} is deprecated; use ${option.long} ${replacement}`);
    return parseArg?.(replacement, previous);
  });
}
