/** `minigpt4 pull`: fetches a known model into the cache. */
import { stat } from "node:fs/promises";
import { resolve } from "node:path";
import { type Command, InvalidArgumentError, Option } from "commander";
import { modelPath } from "../chat/minigpt4.ts";
import { type ImportPrecision, importPrecisions } from "../convert/import-plan.ts";
import { partKinds } from "../convert/import-sources.ts";
import { type Pulled, type PullPlan, pullReleased } from "../convert/pull-released.ts";
import { type ReleasedModel, releasedModels } from "../convert/released.ts";
import { cacheFolder } from "../files/cache-folder.ts";
import { pull } from "../hub/pull.ts";
import { registry } from "../hub/registry.ts";
import { untilInterrupted } from "./options.ts";
import { downloadDisplay, importProgress, stepDisplay } from "./progress.ts";
import { formatBytes } from "./text.ts";

/** What only a released MiniGPT-4 takes. */
interface ReleasedFlags {
  readonly precision?: ImportPrecision;
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

export function registerPull(program: Command): void {
  const known = [
    ...[...releasedModels.keys()].map(
      (name) => `  ${name}  the released MiniGPT-4 with Vicuna v0; LLaMA's licence allows no commercial use`,
    ),
    ...[...registry].map(
      ([name, { bytes, license }]) => `  ${name}  a language model, ${formatBytes(bytes)}, ${license}`,
    ),
  ];
  program
    .command("pull")
    .summary("fetch a model into the cache: the released MiniGPT-4, or a language model")
    .description(
      "Fetches a known model into the cache, checks its files against the hashes that are known of them, and prints its path. " +
        "Of the files that MiniGPT-4 was released as it makes a model folder, and removes them. What was interrupted goes on " +
        "where it was when the same command is given again.",
    )
    .argument("<name>", "see below", knownName)
    .option("--cache <folder>", "where to keep it", cacheFolder())
    .option("--json", 'print {"name", "path", "bytes"} and, of a language model, {"sha256", "license"}')
    .optionsGroup("Of a released MiniGPT-4:")
    .addOption(
      new Option(
        "--precision <type>",
        "of the language model's matrices (default: int4; a GGUF file stays as it is)",
      ).choices(importPrecisions),
    )
    .option("--prefill", "write the copy of the layers for long prompts, as import does")
    .option("--no-prefill", "leave that copy out (7B: 6.5 GB)")
    .option("--out <folder>", "the model folder that is made (default: in the cache, where its name finds it)")
    .option("--keep-files", "leave the released files in the cache")
    .option("--llm <folder>", "take the language model from here: a folder as Hugging Face has it, or a GGUF file")
    .option("--vit <file>", "take the image encoder from here")
    .option("--qformer <file>", "take the Q-Former from here")
    .option("--projection <file>", "take the projection from here")
    .addHelpText(
      "after",
      `
Known names:
${known.join("\n")}

A repository that asks for a licence to be accepted wants an access token of yours as HF_TOKEN.

Examples:
  minigpt4 pull minigpt4-7b
  minigpt4 pull minigpt4-7b --llm vicuna-7b-v0.Q4_K_M.gguf
  minigpt4 chat --model minigpt4-7b cat.jpg
  minigpt4 pull ${[...registry.keys()][0]}`,
    )
    .action(pullKnown);
}

function knownName(name: string): string {
  if (registry.has(name) || releasedModels.has(name)) return name;
  const known = `Known names: ${[...releasedModels.keys(), ...registry.keys()].join(", ")}.`;
  throw new InvalidArgumentError(name === "nano" ? `nano comes with the package. ${known}` : known);
}

async function pullKnown(name: string, { cache, json, ...flags }: PullFlags): Promise<void> {
  const released = releasedModels.get(name);
  if (released) return pullMiniGPT4(released, { cache, json, ...flags });
  const [flag] = Object.keys(flags);
  if (flag)
    throw new Error(`${name} is a language model, fetched as it is; --${dashed(flag)} is for a released MiniGPT-4`);
  await fetchModel(name, cache, json);
}

async function fetchModel(name: string, cache: string, json?: boolean): Promise<void> {
  const { onProgress, stop } = downloadDisplay();
  try {
    const path = await pull(name, { cacheFolder: cache, onProgress, signal: untilInterrupted() });
    stop();
    const { size: bytes } = await stat(path);
    const { sha256, license } = registry.get(name) ?? {};
    console.log(json ? JSON.stringify({ name, path, bytes, sha256, license }) : path);
  } finally {
    stop();
  }
}

async function pullMiniGPT4(model: ReleasedModel, { cache, json, ...flags }: PullFlags): Promise<void> {
  const downloads = downloadDisplay();
  const steps = stepDisplay();
  const imported = importProgress(steps);
  const stop = () => {
    downloads.stop();
    steps.stop();
  };
  try {
    const pulled = await pullReleased(model, {
      ...flags,
      cacheFolder: cache,
      signal: untilInterrupted(),
      onPlan: (plan) => say(planText(model.name, plan)),
      onFetch(progress) {
        steps.stop();
        downloads.onProgress(progress);
      },
      onStep(step, done, total) {
        downloads.stop();
        imported(step, done, total);
      },
    });
    stop();
    const { path, bytes, files } = pulled;
    say(madeText(model.name, cache, pulled));
    console.log(json ? JSON.stringify({ name: model.name, path, bytes, ...(files && { files }) }) : path);
  } finally {
    stop();
  }
}

/** What is going to be done: a line for each file that stands alone, and one for the folder of a language model. */
export function planText(name: string, { out, files, missing, folder }: PullPlan): string {
  const made = `The model folder will have about ${formatBytes(folder)}: ${out}`;
  if (files.length === 0) return made;
  const lines = partKinds.flatMap((kind) => {
    const part = files.filter((file) => file.part === kind);
    const [first] = part;
    if (!first) return [];
    const what = part.length === 1 ? first.name : `${first.name.split("/")[0]}, ${part.length} files`;
    return `  ${formatBytes(total(part)).padStart(7)}  ${what} (${first.license})`;
  });
  const there = missing < total(files) ? `, of which ${formatBytes(total(files) - missing)} are there` : "";
  return [`${name} is made of ${formatBytes(total(files))}${there}:`, ...lines, made].join("\n");
}

function total(files: readonly { readonly bytes: number }[]): number {
  return files.reduce((sum, { bytes }) => sum + bytes, 0);
}

function madeText(name: string, cache: string, { path, fetched, files }: Pulled): string {
  const rest = files
    ? [`The released files are in ${files}`]
    : fetched > 0
      ? ["The released files have been removed from the cache (--keep-files leaves them there)."]
      : [];
  const model = isFoundBy(name, cache, path) ? name : JSON.stringify(path);
  return [...rest, `To try it: minigpt4 chat --model ${model} IMAGE`].join("\n");
}

/** Whether the commands find a folder under a model's name. */
function isFoundBy(name: string, cache: string, path: string): boolean {
  try {
    return cache === cacheFolder() && resolve(modelPath(name, cache)) === path;
  } catch {
    return false;
  }
}

function say(text: string): void {
  process.stderr.write(`${text}\n`);
}

function dashed(flag: string): string {
  return flag.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}
