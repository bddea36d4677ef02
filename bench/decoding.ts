/** Tokens a second of a 4-bit language model, and how fast it reads, against llama.cpp on the same file or one of the same shapes. */

import { join } from "node:path";
import type { Checkpoint } from "../src/formats/open.ts";
import { openLlama } from "../src/models/llama-folder.ts";
import { withLargePages } from "../src/runtime/environment.ts";
import type { Quantization } from "../src/tensor/quant/quantization.ts";
import { LlamaCpp } from "./llama-cpp.ts";
import { type Contest, paired } from "./paired.ts";
import { StepProcess } from "./step-process.ts";

export interface GenerationOptions {
  /** Milliseconds a token. */
  readonly token: Contest;
  /** Milliseconds of reading the whole context. */
  readonly prefill: Contest;
  /** Bytes of weights that each token reads, as the file holds them. */
  readonly weightBytes: number;
}

/** Tokens that are written in a round. */
export const writtenTokens = 32;

export interface DecodingTask {
  /** A GGUF file, which llama.cpp reads. */
  readonly path: string;
  /** A folder that our side reads instead. */
  readonly folder?: string;
  readonly quantization: Quantization;
  readonly threads: number;
  readonly rounds: number;
  /** Positions that are read, and written after. */
  readonly context: number;
}

export async function benchDecoding(task: DecodingTask): Promise<GenerationOptions> {
  const { path, folder, threads, rounds, context } = task;
  const { config, checkpoint } = await openLlama(folder ?? path);
  const bytes = weightBytes(checkpoint, config.tieWordEmbeddings);
  await checkpoint.close();
  const script = join(import.meta.dirname, "decoding-step.ts");
  const ours = await StepProcess.node(script, [JSON.stringify(task)], withLargePages(process.env));
  const theirs = await LlamaCpp.load(path, threads, context + 2 * writtenTokens);
  const prompt = promptOf(context);
  const last = prompt.at(-1) as number;

  const prefill = await paired(
    async () => (await ours.ask("read")) as number,
    async () => {
      await theirs.truncate(0);
      return timed(() => theirs.read(prompt));
    },
    3,
  );
  const token = await paired(
    async () => ((await ours.ask("write")) as number) / writtenTokens,
    async () => {
      await theirs.truncate(context);
      return (await timed(() => theirs.write(last, writtenTokens))) / writtenTokens;
    },
    rounds,
  );
  ours.stop();
  await theirs.dispose();
  return { token, prefill, weightBytes: bytes };
}

/** Token ids of no meaning. */
export function promptOf(context: number): number[] {
  return Array.from({ length: context }, (_, i) => 300 + ((i * 7919) % 20000));
}

/** Every matrix is read for each token, the table of embeddings only where it is the output layer too. */
function weightBytes(checkpoint: Checkpoint, tied: boolean): number {
  const tensors = [...checkpoint.tensors.values()].filter(({ name }) => tied || !name.includes("embed_tokens"));
  return tensors.reduce((sum, { byteLength }) => sum + byteLength, 0);
}

export async function timed(work: () => Promise<unknown>): Promise<number> {
  const start = performance.now();
  await work();
  return performance.now() - start;
}
