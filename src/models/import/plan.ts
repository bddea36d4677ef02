/** What an import writes: which tensors go into which file, and how they are stored. */
import { existsSync } from "node:fs";
import { basename, join } from "node:path";
import type { Checkpoint } from "../../checkpoints/checkpoint.ts";
import { convertedTensor, fitsBlocks, plainType, type StoredPrecision } from "../../checkpoints/convert-tensor.ts";
import type { TensorInfo } from "../../checkpoints/format.ts";
import { intoShards, type TensorGroup } from "../../checkpoints/safetensors-stream.ts";
import type { WeightSource } from "../../nn/weights.ts";
import { bytesOf } from "../../tensor/array.ts";
import { float32ToFloat16 } from "../../tensor/float16.ts";
import { type PromptTemplate, promptTemplates } from "../../text/prompts.ts";
import { smallFiles } from "../llm-files.ts";
import type { ModelFolderJson } from "../model-folder.ts";
import type { Sources } from "./sources.ts";

/** Of the language model's matrices; "fp32" changes no value, so that what is stored in float16 stays so. */
export const importPrecisions = ["int4", "int8", "fp16", "fp32"] as const;
export type ImportPrecision = (typeof importPrecisions)[number];

export interface ImportPlan {
  /** Files of the image part, by name. */
  readonly images: ReadonlyMap<string, readonly TensorGroup[]>;
  /** The language model: shards of a folder with these small files, or one GGUF file as it is. */
  readonly llm:
    | {
        readonly from: string;
        readonly shards: ReadonlyMap<string, readonly TensorGroup[]>;
        readonly copies: readonly string[];
      }
    | { readonly gguf: string };
  readonly json: ModelFolderJson;
}

export interface PlanOptions {
  readonly precision: ImportPrecision;
  /** By default Vicuna's with a Q-Former, and Llama 2's without. */
  readonly template?: PromptTemplate["name"] | undefined;
  /** Bytes of a shard. */
  readonly largestShard?: number | undefined;
}

export function planImport(
  sources: Sources,
  llmPath: string,
  { precision, template, largestShard }: PlanOptions,
): ImportPlan {
  const { used, json, llm } = sources;
  const images = imageFiles(sources, precision);
  const isGguf = llm.checkpoint.format === "gguf";
  const name = template ?? (json.qformer ? "vicuna-v0" : "llama-2");
  const hasBlocks = isGguf || precision === "int4" || precision === "int8";
  return {
    images,
    llm: isGguf
      ? { gguf: llmPath }
      : {
          from: llmPath,
          shards: intoShards(
            tensors(llm.checkpoint, used.llm, (info) => storedLlm(llm.checkpoint, info, precision)),
            largestShard,
          ),
          copies: smallFiles.filter((file) => existsSync(join(llmPath, file))),
        },
    json: {
      model_type: "minigpt4",
      ...json,
      llm: isGguf ? basename(llmPath) : "llm",
      ...(hasBlocks && { precision: "stored" }),
      weights: {
        encoder: "encoder.safetensors",
        ...(sources.qformer && { qformer: "qformer.safetensors" }),
        projection: "projection.safetensors",
      },
      prompt_template: name,
      describe: describePrompts[name],
    },
  };
}

function imageFiles(sources: Sources, precision: ImportPrecision): Map<string, TensorGroup[]> {
  const { vit, qformer, projection, lnVision, used } = sources;
  const part = (checkpoint: Checkpoint, names: ReadonlySet<string>) =>
    tensors(checkpoint, names, (info) => storedFloat(checkpoint, info, precision));
  const files = new Map([["encoder.safetensors", part(vit, used.encoder)]]);
  if (qformer) files.set("qformer.safetensors", part(qformer, used.qformer));
  else if (lnVision)
    files.get("encoder.safetensors")?.push(...[...used.qformer].map((name) => smallTensor(lnVision, name)));
  files.set("projection.safetensors", part(projection, used.projection));
  return files;
}

function tensors(
  checkpoint: Checkpoint,
  names: ReadonlySet<string>,
  precisionOf: (info: TensorInfo) => StoredPrecision,
): TensorGroup[] {
  return [...checkpoint.tensors.values()]
    .filter(({ name }) => names.has(name))
    .map((info) => convertedTensor(checkpoint, info, precisionOf(info)));
}

/** Matrices in blocks; the table of input embeddings, of which only rows are read, and all else in float16. */
function storedLlm(checkpoint: Checkpoint, info: TensorInfo, precision: ImportPrecision): StoredPrecision {
  const isTable = info.name === "model.embed_tokens.weight";
  if ((precision === "int4" || precision === "int8") && !isTable && fitsBlocks(info.shape)) return precision;
  return storedFloat(checkpoint, info, precision);
}

function storedFloat(checkpoint: Checkpoint, info: TensorInfo, precision: ImportPrecision): StoredPrecision {
  if (precision !== "fp32" || plainType(checkpoint, info) === "float16") return "float16";
  return "float32";
}

function smallTensor(source: WeightSource, name: string): TensorGroup {
  const shape = source.tensors.get(name)?.shape ?? [];
  return {
    tensors: [{ name, dtype: "float16", shape }],
    async *load() {
      yield bytesOf(float32ToFloat16(await source.readFloat32(name)));
    },
  };
}

/** How a description is asked for, as in the second training stage. */
const question = "<Img><ImageHere></Img> Describe this image in detail.";
const describePrompts: Readonly<Record<PromptTemplate["name"], ModelFolderJson["describe"]>> = {
  "vicuna-v0": { prompt: `###Human: ${question} ###Assistant: `, stop: [...promptTemplates["vicuna-v0"].stop] },
  "llama-2": { prompt: `[INST] ${question} [/INST] `, stop: [] },
  chatml: {
    prompt: `<|im_start|>user\n${question}<|im_end|>\n<|im_start|>assistant\n`,
    stop: [...promptTemplates.chatml.stop],
  },
  plain: { prompt: "<ImageHere>", stop: [...promptTemplates.plain.stop] },
};
