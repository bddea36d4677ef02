/** `minigpt4 pull`: downloads a known model into the cache. */
import { stat } from "node:fs/promises";
import { resolve } from "node:path";
import { type Command, InvalidArgumentError, Option } from "commander";
import { modelPath } from "../chat/models.ts";
import { type ImportQuantization, importQuantizations } from "../convert/import-plan.ts";
import { partKinds } from "../convert/import-sources.ts";
import { type Pulled, type PullPlan, pullReleased } from "../convert/pull-released.ts";
import { type ReleasedModel, releasedModels } from "../convert/released.ts";
import { cacheFolder } from "../files/cache-folder.ts";
import { pull } from "../hub/pull.ts";
import { registry } from "../hub/registry.ts";
import { oldQuantizations } from "../tensor/quant/quantization.ts";
import type { CommandContext } from "./context.ts";
import { showImport } from "./import.ts";
import { addDeprecatedOption, withDeprecatedValues } from "./options.ts";
import { ProgressDisplay } from "./progress.ts";
import { formatBytes } from "./text.ts";

/** Options of a released MiniGPT-4. */
interface ReleasedFlags {
  readonly quantization?: ImportQuantization;
  readonly prefill?: boolean;
  readonly out?: string;
  readonly keepFiles?: boolean;
  readonly vit?: string;
  readonly qformer?: string;
  readonly projection?: string;
  readonly llm?: string;
}

interface PullFlags extends ReleasedFlags {
  readonly cache: string;
  readonly json?: boolean;
}

export function definePull(command: Command, context: CommandContext): void {
  const known = [
    ...[...releasedModels.keys()].map(
      (name) => `  ${name}  the released MiniGPT-4 with Vicuna v0; LLaMA's licence forbids commercial use`,
    ),
    ...[...registry].map(
      ([name, { bytes, license }]) => `  ${name}  a language model, ${formatBytes(bytes)}, ${license}`,
    ),
  ];
  command
    .description(
      "Download a known model into the cache, verify its files, and print its path. The files of a released MiniGPT-4 are " +
        "converted to a model folder and then removed. Run the same command again to continue after an interruption.",
    )
    .argument("<name>", "name of a model; see below", knownName)
    .option("--cache <folder>", "cache folder", cacheFolder())
    .option(
      "--json",
      'print one JSON object: {"name", "path", "bytes"}, for a language model also {"sha256", "license"}',
    )
    .optionsGroup("Options of a released MiniGPT-4:")
    .addOption(
      withDeprecatedValues(
        new Option(
          "--quantization <type>",
          "quantization of the language model's matrices (default: int4, or as stored in a GGUF file)",
        ).choices(importQuantizations),
        context,
        oldQuantizations,
      ),
    )
    .option(
      "--prefill",
      "write an int8 copy of the layers, which speeds up long prompts (7B: 6.5 GB) (default: if this CPU benefits)",
    )
    .option("--no-prefill", "do not write that copy")
    .option("--out <folder>", "output folder (default: in the cache, where --model finds it by name)")
    .option("--keep-files", "keep the released files in the cache")
    .option(
      "--llm <folder>",
      "use this language model, a Hugging Face folder or a GGUF file, instead of downloading one",
    )
    .option("--vit <file>", "use this image encoder instead of downloading it")
    .option("--qformer <file>", "use this Q-Former instead of downloading it")
    .option("--projection <file>", "use this projection instead of downloading it")
    .addHelpText(
      "after",
      `
Known names:
${known.join("\n")}

Set HF_TOKEN to your access token for repositories that require accepting a licence.

Examples:
  minigpt4 pull minigpt4-7b
  minigpt4 pull minigpt4-7b --llm vicuna-7b-v0.Q4_K_M.gguf
  minigpt4 chat --model minigpt4-7b cat.jpg
  minigpt4 pull ${[...registry.keys()][0]}`,
    )
    .action((name, flags) => pullKnown(context, name, flags));
  addDeprecatedOption(command, context, { flags: "--precision <type>", replacement: "--quantization" });
}

function knownName(name: string): string {
  if (registry.has(name) || releasedModels.has(name)) return name;
  const known = `Known names: ${[...releasedModels.keys(), ...registry.keys()].join(", ")}.`;
  throw new InvalidArgumentError(name === "nano" ? `nano is bundled; there is nothing to pull. ${known}` : known);
}

async function pullKnown(context: CommandContext, name: string, { cache, json, ...flags }: PullFlags): Promise<void> {
  const released = releasedModels.get(name);
  if (released) return pullMiniGPT4(context, released, { cache, json, ...flags });
  const [flag] = Object.keys(flags);
  if (flag)
    throw new Error(
      `--${toFlag(flag)} is an option of a released MiniGPT-4, and ${name} is a language model; remove it`,
    );
  await fetchModel(context, name, { cache, json });
}

async function fetchModel(
  context: CommandContext,
  name: string,
  { cache, json }: Pick<PullFlags, "cache" | "json">,
): Promise<void> {
  const display = new ProgressDisplay(context);
  try {
    const path = await pull(name, {
      cacheFolder: cache,
      onProgress: display.download,
      signal: context.untilInterrupted(),
    });
    display.stop();
    const { size: bytes } = await stat(path);
    const { sha256, license } = registry.get(name) ?? {};
    context.print(json ? JSON.stringify({ name, path, bytes, sha256, license }) : path);
  } finally {
    display.stop();
  }
}

async function pullMiniGPT4(
  context: CommandContext,
  model: ReleasedModel,
  { cache, json, ...flags }: PullFlags,
): Promise<void> {
  const display = new ProgressDisplay(context);
  try {
    const pulled = await pullReleased(model, {
      ...flags,
      cacheFolder: cache,
      signal: context.untilInterrupted(),
      onPlan: (plan) => context.printError(planText(model.name, plan)),
      onFetch: display.download,
      onStep: showImport(display),
    });
    display.stop();
    const { path, bytes, files } = pulled;
    context.printError(resultText(model.name, cache, pulled));
    context.print(json ? JSON.stringify({ name: model.name, path, bytes, files }) : path);
  } finally {
    display.stop();
  }
}

/** The files to download, with sizes and licences, and the size of the model folder. */
export function planText(name: string, { out, files, missing, folder }: PullPlan): string {
  const made = `The model folder will take about ${formatBytes(folder)}: ${out}`;
  if (files.length === 0) return made;
  const lines = partKinds.flatMap((kind) => {
    const part = files.filter((file) => file.part === kind);
    const [first] = part;
    if (!first) return [];
    const what = part.length === 1 ? first.name : `${first.name.split("/")[0]}, ${part.length} files`;
    return `  ${formatBytes(total(part)).padStart(7)}  ${what} (${first.license})`;
  });
  const cached = missing < total(files) ? `, ${formatBytes(total(files) - missing)} of it cached` : "";
  return [`${name} needs ${formatBytes(total(files))} of downloads${cached}:`, ...lines, made].join("\n");
}

function total(files: readonly { readonly bytes: number }[]): number {
  return files.reduce((sum, { bytes }) => sum + bytes, 0);
}

function resultText(name: string, cache: string, { path, fetched, files }: Pulled): string {
  const rest = files
    ? [`The released files are in ${files}`]
    : fetched > 0
      ? ["The released files were removed from the cache (--keep-files keeps them)."]
      : [];
  const model = isFoundBy(name, cache, path) ? name : JSON.stringify(path);
  return [...rest, `Try it with: minigpt4 chat --model ${model} IMAGE`].join("\n");
}

/** Whether `--model NAME` finds the folder. */
function isFoundBy(name: string, cache: string, path: string): boolean {
  try {
    return cache === cacheFolder() && resolve(modelPath(name, cache)) === path;
  } catch {
    return false;
  }
}

function toFlag(flag: string): string {
  return flag.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}
