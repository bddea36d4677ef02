/** Plans an import: which tensors go into which file, and how they are stored. */
import { existsSync } from "node:fs";
import { basename, join } from "node:path";
import type { TensorInfo } from "../formats/checkpoint.ts";
import type { Checkpoint } from "../formats/open.ts";
import { joinGroups, splitIntoShards, type TensorGroup } from "../formats/safetensors-writer.ts";
import { evaVitMatrices } from "../models/eva-vit.ts";
import { smallFiles } from "../models/llama-folder.ts";
import type { ModelFolderJson } from "../models/model-folder.ts";
import { bytesOf } from "../tensor/array.ts";
import { float32ToFloat16 } from "../tensor/float16.ts";
import type { BlockSize } from "../tensor/quant/blocks.ts";
import type { WeightSource } from "../tensor/weight-source.ts";
import { type PromptTemplate, promptTemplates } from "../tokenizers/prompts.ts";
import { convertTensor, fitBlockSize, type StoredQuantization, unquantizedType } from "./convert-tensor.ts";
import type { Sources } from "./import-sources.ts";

/** Quantizations of the language model; "float32" changes no value, so float16 tensors stay float16. */
export const importQuantizations = ["int4", "int8", "float16", "float32"] as const;
export type ImportQuantization = (typeof importQuantizations)[number];

export const encoderQuantizations = ["int8", "float16"] as const;
export type EncoderQuantization = (typeof encoderQuantizations)[number];

export interface ImportPlan {
  /** Files of the image part, by name. */
  readonly images: ReadonlyMap<string, readonly TensorGroup[]>;
  /** The language model: shards of a folder with these small files, or an unchanged GGUF file. */
  readonly llm:
    | {
        readonly from: string;
        readonly shards: ReadonlyMap<string, readonly TensorGroup[]>;
        /** Shards of the int8 layers for prefill; empty without them. */
        readonly prefill: ReadonlyMap<string, readonly TensorGroup[]>;
        readonly copies: readonly string[];
      }
    | { readonly gguf: string };
  readonly json: ModelFolderJson;
}

export interface PlanOptions {
  readonly quantization: ImportQuantization;
  /** Largest block size for int4 and int8; rows that are not a multiple of it get a smaller one. */
  readonly blockSize: BlockSize;
  /** Quantization of the image encoder's matrices. */
  readonly encoderQuantization: EncoderQuantization;
  /** Whether a quantized language model gets a second copy of its layers in int8, for prefill. */
  readonly prefill: boolean;
  /** By default Vicuna's with a Q-Former, and Llama 2's without one. */
  readonly template?: PromptTemplate["name"];
  /** Size of a shard in bytes. @default 2000000000 */
  readonly maxShardBytes?: number;
}

export function planImport(
  sources: Sources,
  llmPath: string,
  { quantization, blockSize, encoderQuantization, prefill, template, maxShardBytes }: PlanOptions,
): ImportPlan {
  const { used, json, llm } = sources;
  const images = imageFiles(sources, quantization, encoderQuantization);
  const isGguf = llm.checkpoint.format === "gguf";
  const name = template ?? (json.qformer ? "vicuna-v0" : "llama-2");
  const hasBlocks = isGguf || quantization === "int4" || quantization === "int8";
  return {
    images,
    llm: isGguf
      ? { gguf: llmPath }
      : {
          from: llmPath,
          shards: splitIntoShards(
            joinProducts(
              tensors(llm.checkpoint, used.llm, (info) => storedLlm(llm.checkpoint, info, quantization, blockSize)),
            ),
            maxShardBytes,
          ),
          prefill:
            prefill && hasBlocks ? splitIntoShards(prefillTensors(llm.checkpoint, used.llm), maxShardBytes) : new Map(),
          copies: smallFiles.filter((file) => existsSync(join(llmPath, file))),
        },
    json: {
      model_type: "minigpt4",
      ...json,
      llm: isGguf ? basename(llmPath) : "llm",
      quantization: hasBlocks ? "native" : undefined,
      weights: {
        encoder: "encoder.safetensors",
        qformer: sources.qformer && "qformer.safetensors",
        projection: "projection.safetensors",
      },
      prompt_template: name,
      describe: describePrompts[name],
    },
  };
}

function imageFiles(
  sources: Sources,
  quantization: ImportQuantization,
  encoderQuantization: EncoderQuantization,
): Map<string, TensorGroup[]> {
  const { vit, qformer, projection, lnVision, used } = sources;
  const part = (checkpoint: Checkpoint, names: ReadonlySet<string>) =>
    tensors(checkpoint, names, (info) => storedFloat(checkpoint, info, quantization));
  const encoder = tensors(vit, used.encoder, (info) =>
    encoderQuantization === "int8" && evaVitMatrices.activationBits(info.name)
      ? "tiled-int8"
      : storedFloat(vit, info, quantization),
  );
  const files = new Map([["encoder.safetensors", encoder]]);
  // Matrices that are used in float32 can be mapped from the file if it stores float32.
  if (qformer)
    files.set(
      "qformer.safetensors",
      tensors(qformer, used.qformer, (info) => storedFloat(qformer, info, "float32")),
    );
  else if (lnVision)
    files.get("encoder.safetensors")?.push(...[...used.qformer].map((name) => smallTensor(lnVision, name)));
  files.set("projection.safetensors", part(projection, used.projection));
  return files;
}

function tensors(
  checkpoint: Checkpoint,
  names: ReadonlySet<string>,
  chooseQuantization: (info: TensorInfo) => StoredQuantization,
): TensorGroup[] {
  return [...checkpoint.tensors.values()]
    .filter(({ name }) => names.has(name))
    .map((info) => convertTensor(checkpoint, info, chooseQuantization(info)));
}

/** Matrices that are multiplied together; see `linears`. */
const products = [["q_proj", "k_proj", "v_proj"].map((name) => `self_attn.${name}`), ["mlp.gate_proj", "mlp.up_proj"]];

/** Stores the blocks of matrices that are multiplied together side by side, so that the runtime can map them as one. */
function joinProducts(groups: readonly TensorGroup[]): TensorGroup[] {
  const byName = new Map(groups.map((group) => [group.tensors[0]?.name ?? "", group]));
  const joined = new Set<TensorGroup>();
  return groups.flatMap((group) => {
    if (joined.has(group)) return [];
    const name = group.tensors[0]?.name ?? "";
    const [, layer, own, end] = /^(model\.layers\.\d+)\.(.+?)(\.weight\.int[48])$/.exec(name) ?? [];
    const names = products.find((product) => own !== undefined && product.includes(own)) ?? [];
    const parts = names.flatMap((part) => byName.get(`${layer}.${part}${end}`) ?? []);
    const isAlike = parts.length === names.length && parts.every(({ tensors }) => sameBlocks(tensors, group.tensors));
    if (parts.length === 0 || !isAlike) return [group];
    for (const part of parts) joined.add(part);
    return [joinGroups(parts)];
  });
}

/** The layers with their matrices in tiled int8, for prefill. */
function prefillTensors(checkpoint: Checkpoint, used: ReadonlySet<string>): TensorGroup[] {
  const layers = new Set([...used].filter((name) => name.startsWith("model.layers.")));
  return tensors(checkpoint, layers, ({ shape }) => (shape.length === 2 ? "tiled-int8" : "float16"));
}

function sameBlocks(a: TensorGroup["tensors"], b: TensorGroup["tensors"]): boolean {
  return a.length === b.length && `${a[0]?.shape.slice(1)}` === `${b[0]?.shape.slice(1)}`;
}

/** Matrices in blocks, everything else in float16. Input embeddings are sensitive, so they have at least 8 bits. */
function storedLlm(
  checkpoint: Checkpoint,
  info: TensorInfo,
  quantization: ImportQuantization,
  largestBlock: BlockSize,
): StoredQuantization {
  const blockSize = fitBlockSize(info.shape, largestBlock);
  if (!blockSize || (quantization !== "int4" && quantization !== "int8"))
    return storedFloat(checkpoint, info, quantization);
  const isTable = info.name === "model.embed_tokens.weight";
  return { bits: quantization === "int4" && !isTable ? 4 : 8, blockSize };
}

function storedFloat(checkpoint: Checkpoint, info: TensorInfo, quantization: ImportQuantization): StoredQuantization {
  if (quantization !== "float32" || unquantizedType(checkpoint, info) === "float16") return "float16";
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

/** The prompt of the second training stage. */
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
