/** Tokens a second of a 4-bit language model, and how fast it reads, against llama.cpp on the same file or one of the same shapes. */

import { dirname } from "node:path";
import { openLanguageModel } from "../src/chat/create.ts";
import type { LanguageModel } from "../src/chat/language-model.ts";
import type { Precision } from "../src/chat/reading-graph.ts";
import type { Checkpoint } from "../src/checkpoints/checkpoint.ts";
import { openLlama } from "../src/models/open-llama.ts";
import { LlamaCpp } from "./llama-cpp.ts";
import { type Contest, paired } from "./paired.ts";

export interface Decoding {
  /** Milliseconds a token. */
  readonly token: Contest;
  /** Milliseconds of reading the whole context. */
  readonly prefill: Contest;
  /** Bytes of weights that each token reads, as the file holds them. */
  readonly weightBytes: number;
}

/** Tokens that are written in a round. */
const block = 32;

export interface DecodingTask {
  /** A GGUF file, which llama.cpp reads. */
  readonly path: string;
  /** A folder that our side reads instead. */
  readonly folder?: string;
  readonly precision: Precision;
  readonly threads: number;
  readonly rounds: number;
  /** Positions that are read, and written after. */
  readonly context: number;
}

export async function benchDecoding({
  path,
  folder,
  precision,
  threads,
  rounds,
  context,
}: DecodingTask): Promise<Decoding> {
  const llm = await openLlama(folder ?? path);
  const { config, checkpoint } = llm;
  const ours = await openLanguageModel(llm, folder ?? dirname(path), { precision, threads });
  const theirs = await LlamaCpp.load(path, threads, context + 2 * block);
  const prompt = Array.from({ length: context }, (_, i) => 300 + ((i * 7919) % 20000));
  const last = prompt.at(-1) as number;
  let cache = ours.newCache();

  const prefill = await paired(
    () => {
      cache = ours.newCache();
      return timed(() => ours.read([prompt], cache));
    },
    async () => {
      await theirs.truncate(0);
      return timed(() => theirs.read(prompt));
    },
    3,
  );
  const token = await paired(
    async () => {
      cache.truncate(context);
      return (await timed(() => write(ours, cache, last, block))) / block;
    },
    async () => {
      await theirs.truncate(context);
      return (await timed(() => theirs.write(last, block))) / block;
    },
    rounds,
  );
  await ours.release();
  await theirs.dispose();
  await checkpoint.close();
  return { token, prefill, weightBytes: weightBytes(checkpoint, config.tieWordEmbeddings) };
}

/** Writes greedily: `count` tokens after `first`. */
async function write(model: LanguageModel, cache: ReturnType<LanguageModel["newCache"]>, first: number, count: number) {
  let next = first;
  for (let i = 0; i < count; i++) {
    const { data } = await model.read([[next]], cache);
    next = 0;
    for (let id = 1; id < data.length; id++) if ((data[id] as number) > (data[next] as number)) next = id;
  }
}

/** Every matrix is read for each token, the table of embeddings only where it is the output layer too. */
function weightBytes(checkpoint: Checkpoint, tied: boolean): number {
  const tensors = [...checkpoint.tensors.values()].filter(({ name }) => tied || !name.includes("embed_tokens"));
  return tensors.reduce((sum, { byteLength }) => sum + byteLength, 0);
}

async function timed(work: () => Promise<unknown>): Promise<number> {
  const start = performance.now();
  await work();
  return performance.now() - start;
}
