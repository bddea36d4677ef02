/** Imports the released files of a MiniGPT-4 into a self-contained model folder. */
import { copyFile, mkdir, stat } from "node:fs/promises";
import { basename, join, resolve } from "node:path";
import { copyFileAtomic } from "../files/atomic.ts";
import { checkDiskSpace, Journal, verifyFiles } from "../files/journal.ts";
import { writeJsonFile } from "../files/json-file.ts";
import { groupBytes, streamSafetensors, writeShards } from "../formats/safetensors-writer.ts";
import { prefillFolder } from "../models/llama-folder.ts";
import { encoderConfig, encoderSchema } from "../models/model-folder.ts";
import { supportsMappedInt8 } from "../runtime/session.ts";
import type { BlockSize } from "../tensor/quant/blocks.ts";
import { describeOrigin } from "./delta.ts";
import { int8Similarity, leastSimilarity } from "./encoder-quantization.ts";
import {
  type EncoderQuantization,
  type ImportPlan,
  type ImportQuantization,
  type PlanOptions,
  planImport,
} from "./import-plan.ts";
import { type Heads, openSources, type SourcePaths, type Sources } from "./import-sources.ts";

export interface ImportOptions
  extends SourcePaths,
    Heads,
    Omit<PlanOptions, "quantization" | "blockSize" | "encoderQuantization" | "prefill"> {
  /** The new model folder. */
  readonly out: string;
  /** Quantization of the language model; a GGUF file keeps its own. @default "int4" */
  readonly quantization?: ImportQuantization;
  /** Block size for int4 and int8. @default 128 */
  readonly blockSize?: BlockSize;
  /** By default int8 if the language model is in 4 or 8 bits and the features of photos stay the same; see `int8Similarity`. */
  readonly encoderQuantization?: EncoderQuantization;
  /**
   * Whether the layers are also written in int8, which makes prefill several times as fast; see `generation/prefill.ts`. By
   * default if this processor supports it.
   */
  readonly prefill?: boolean;
  readonly signal?: AbortSignal;
  /** Progress in blocks of the image encoder, then in bytes. */
  readonly onProgress?: ImportProgress;
}

type ImportProgress = (step: "Comparing" | "Writing" | "Checking", done: number, total: number) => void;

export interface Imported {
  readonly path: string;
  /** Size of all weight files in bytes. */
  readonly bytes: number;
  readonly template: string;
  /** Quantization of the image encoder, and the cosine similarity of int8 to float32 if it was measured. */
  readonly encoder: { readonly quantization: EncoderQuantization; readonly similarity?: number };
  /** Bytes that an earlier attempt had written. */
  readonly resumed: number;
}

/** Journal in the model's folder: its inputs and options, and the SHA-256 of its files. */
export const importJournal = "import.json";

/**
 * Writes a model folder. An interrupted import resumes when it is called again with the same files and options.
 * @throws Error before anything is written, if a file is not the part that its option expects, or two do not match
 */
export async function importModel(options: ImportOptions): Promise<Imported> {
  const { out, signal, onProgress, llm: llmPath } = options;
  const sources = await openSources(options, options);
  try {
    const isGguf = sources.llm.checkpoint.format === "gguf";
    if (isGguf && options.quantization) {
      throw new Error(`${llmPath}: a GGUF file keeps the quantization that it is stored in; omit --quantization`);
    }
    const quantization = options.quantization ?? "int4";
    const encoder = await chooseEncoder(sources, isGguf ? "int4" : quantization, options);
    const { blockSize = 128, prefill = supportsMappedInt8("cpu") } = options;
    const chosen = { ...options, quantization, blockSize, encoderQuantization: encoder.quantization, prefill };
    const plan = planImport(sources, llmPath, chosen);
    await mkdir(out, { recursive: true });
    const journal = await Journal.open(out, importJournal, await describeWork(chosen, plan));
    const sizes = await fileSizes(plan);
    const total = sum(sizes.values());
    let done = 0;
    for (const [file, size] of sizes) if (await journal.has(file)) done += size;
    const resumed = done;
    await checkDiskSpace(out, total - done);
    const onBytes = (bytes: number) => {
      done += bytes;
      onProgress?.("Writing", done, total);
    };
    await writeFiles(plan, out, journal, { signal, onBytes });
    await verifyFiles(out, journal, { signal, onProgress });
    await writeJsonFile(join(out, "config.json"), plan.json);
    await journal.finish();
    const bytes = sum(Object.values(journal.files).map((file) => file.bytes));
    return { path: resolve(out), bytes, template: plan.json.prompt_template, encoder, resumed };
  } finally {
    await sources.close();
  }
}

/** Chooses the quantization of the image encoder: as given, or by the similarity on photos. */
async function chooseEncoder(
  { vit, json }: Sources,
  quantization: ImportQuantization,
  { encoderQuantization, signal, onProgress }: ImportOptions,
): Promise<Imported["encoder"]> {
  if (encoderQuantization) return { quantization: encoderQuantization };
  const config = encoderConfig(encoderSchema.parse(json.encoder));
  if (config.type !== "eva_vit" || quantization === "float16" || quantization === "float32")
    return { quantization: "float16" };
  const compared = (done: number, total: number) => onProgress?.("Comparing", done, total);
  const similarity = await int8Similarity(vit, config, { signal, onProgress: compared });
  return { quantization: similarity >= leastSimilarity ? "int8" : "float16", similarity };
}

async function writeFiles(
  { images, llm }: ImportPlan,
  out: string,
  journal: Journal,
  options: { readonly signal?: AbortSignal; onBytes(bytes: number): void },
): Promise<void> {
  for (const [name, groups] of images) {
    if (await journal.has(name)) continue;
    await journal.record(name, await streamSafetensors(join(out, name), groups, options));
  }
  if ("gguf" in llm) {
    const name = basename(llm.gguf);
    if (await journal.has(name)) return;
    await journal.record(name, await copyFileAtomic(llm.gguf, join(out, name), options));
    return;
  }
  const folder = join(out, "llm");
  await mkdir(folder, { recursive: true });
  for (const name of llm.copies) await copyFile(join(llm.from, name), join(folder, name));
  await writeShards(folder, llm.shards, { ...options, journal, prefix: "llm/" });
  if (llm.prefill.size === 0) return;
  const prefill = join(folder, prefillFolder);
  await mkdir(prefill, { recursive: true });
  await writeShards(prefill, llm.prefill, { ...options, journal, prefix: `llm/${prefillFolder}/` });
}

/** Size of each file in bytes, without headers. */
async function fileSizes({ images, llm }: ImportPlan): Promise<Map<string, number>> {
  const sizes = new Map([...images].map(([name, groups]) => [name, sum(groups.map(groupBytes))]));
  if ("gguf" in llm) return sizes.set(basename(llm.gguf), (await stat(llm.gguf)).size);
  for (const [name, groups] of llm.shards) sizes.set(`llm/${name}`, sum(groups.map(groupBytes)));
  for (const [name, groups] of llm.prefill) sizes.set(`llm/${prefillFolder}/${name}`, sum(groups.map(groupBytes)));
  return sizes;
}

/** Inputs and options that identify an import. */
async function describeWork(
  { vit, qformer, llm, projection, quantization, blockSize, encoderQuantization, prefill }: SourcePaths & PlanOptions,
  plan: ImportPlan,
) {
  return {
    vit: await describeOrigin(vit),
    qformer: qformer === undefined ? undefined : await describeOrigin(qformer),
    llm: await describeOrigin(llm),
    projection: await describeOrigin(projection),
    quantization: "gguf" in plan.llm ? "native" : quantization,
    blockSize,
    encoderQuantization,
    prefill,
    config: plan.json,
  };
}

function sum(values: Iterable<number>): number {
  let total = 0;
  for (const value of values) total += value;
  return total;
}
