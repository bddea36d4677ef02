/** Opens the released files of a MiniGPT-4 and checks that they match, before anything is written. */

import { stat } from "node:fs/promises";
import { type Checkpoint, openCheckpoint } from "../formats/open.ts";
import { type OpenLlama, openLlama } from "../models/llama-folder.ts";
import type { ImageSources, MiniGPT4Config } from "../models/minigpt4.ts";
import {
  encoderConfig,
  encoderSchema,
  type ModelFolderJson,
  projectionMismatch,
  qformerConfig,
  qformerSchema,
} from "../models/model-folder.ts";
import { usedByImages, usedByLlama } from "../models/used-tensors.ts";
import { formatShape } from "../tensor/shapes.ts";
import { overlayWeights, type WeightSource, weightsInMemory } from "../tensor/weight-source.ts";
import { deltaMessage, isUnmergedDelta } from "./delta.ts";

/** Parts of MiniGPT-4. */
export const partKinds = ["vit", "qformer", "projection", "llm"] as const;
export type PartKind = (typeof partKinds)[number];

const marks: readonly { readonly kind: PartKind; readonly tensors: readonly string[]; readonly what: string }[] = [
  {
    kind: "vit",
    tensors: ["patch_embed.proj.weight", "blocks.0.attn.qkv.weight"],
    what: "the image encoder (EVA ViT)",
  },
  { kind: "qformer", tensors: ["query_tokens"], what: "the Q-Former" },
  { kind: "projection", tensors: ["llama_proj.weight"], what: "MiniGPT-4's projection" },
  { kind: "llm", tensors: ["model.embed_tokens.weight"], what: "a language model" },
];

/** Checks that a file contains a part. @throws Error naming what it contains instead, and the option for it */
export function expectPart({ path, tensors }: Checkpoint, kind: PartKind): void {
  const found = marks.filter((mark) => mark.tensors.every((name) => tensors.has(name)));
  if (found.some((mark) => mark.kind === kind)) return;
  const expected = marks.find((mark) => mark.kind === kind);
  const needs = `--${kind} needs ${expected?.what} (${expected?.tensors.join(", ")})`;
  const [other] = found;
  if (other) throw new Error(`${path} contains ${other.what}; pass it with --${other.kind}. ${needs}`);
  const some = [...tensors.keys()].slice(0, 3).join(", ");
  throw new Error(`${path} is not a part of MiniGPT-4 (${some || "it is empty"}); ${needs}`);
}

export interface SourcePaths {
  readonly vit: string;
  /** Without a Q-Former, four neighbouring patches become one token, as in the Llama 2 release. */
  readonly qformer?: string;
  /** A Hugging Face folder or a GGUF file. */
  readonly llm: string;
  readonly projection: string;
}

/** Dimensions that tensor shapes do not determine. */
export interface Heads {
  /** Attention heads of the image encoder. @default width / 88, as in EVA-CLIP g */
  readonly vitHeads?: number;
  /** Attention heads of the Q-Former. @default width / 64, as in BERT */
  readonly qformerHeads?: number;
  /** Blocks of the image encoder to run; by default all, but for EVA-CLIP g all except the last. */
  readonly vitLayers?: number;
}

export interface Sources {
  readonly vit: Checkpoint;
  readonly qformer?: Checkpoint;
  readonly projection: Checkpoint;
  readonly llm: OpenLlama;
  /** The norm after the image encoder, of models without a Q-Former. */
  readonly lnVision?: WeightSource;
  readonly json: Pick<ModelFolderJson, "encoder" | "qformer">;
  /** Names of the tensors that are used, by part. */
  readonly used: Readonly<Record<keyof ImageSources | "llm", ReadonlySet<string>>>;
  close(): Promise<void>;
}

/** Opens the files of all parts. @throws Error naming files, tensors and shapes if a file is not the part that its option expects, or two do not match */
export async function openSources(paths: SourcePaths, heads: Heads): Promise<Sources> {
  const open: Checkpoint[] = [];
  const close = async () => {
    for (const checkpoint of open) await checkpoint.close();
  };
  const openPart = async (path: string, kind: "vit" | "qformer" | "projection") => {
    const checkpoint = await openCheckpoint(path);
    open.push(checkpoint);
    expectPart(checkpoint, kind);
    return checkpoint;
  };
  try {
    const vit = await openPart(paths.vit, "vit");
    const qformer = paths.qformer === undefined ? undefined : await openPart(paths.qformer, "qformer");
    const projection = await openPart(paths.projection, "projection");
    const llm = await openLlm(paths.llm, open);
    const json = {
      encoder: readVitConfig(vit, heads),
      qformer: qformer && readQFormerConfig(qformer, heads),
    };
    const config: MiniGPT4Config = {
      encoder: encoderConfig(encoderSchema.parse(json.encoder)),
      qformer: json.qformer && qformerConfig(qformerSchema.parse(json.qformer)),
      llm: llm.config,
    };
    checkFit({ vit, qformer, projection, llm }, config);
    const lnVision = qformer ? undefined : lnVisionWeights(vit, projection, json.encoder.hidden_size ?? 0);
    const images = usedByImages({ encoder: vit, qformer: qformer ?? lnVision ?? vit, projection }, config);
    const used = { ...images, llm: usedByLlama(llm.checkpoint, llm.config) };
    if (await isUnmergedDelta(llm.checkpoint)) throw new Error(deltaMessage(paths.llm));
    return { vit, qformer, projection, llm, lnVision, json, used, close };
  } catch (error) {
    await close();
    throw error;
  }
}

async function openLlm(path: string, open: Checkpoint[]): Promise<OpenLlama> {
  if ((await stat(path)).isFile()) {
    const file = await openCheckpoint(path);
    open.push(file);
    if (file.format !== "gguf") expectPart(file, "llm");
  }
  const llm = await openLlama(path);
  open.push(llm.checkpoint);
  return llm;
}

type Parts = Pick<Sources, "vit" | "projection" | "llm" | "qformer">;

/** Checks that the widths of the parts match. @throws Error naming both files */
function checkFit({ vit, qformer, projection, llm }: Parts, { encoder, qformer: q, llm: l }: MiniGPT4Config): void {
  const [to, from] = projectionDimensions(projection);
  const shape = `llama_proj.weight is [${to}, ${from}]`;
  if (to !== l.hiddenSize) {
    throw new Error(
      projectionMismatch({ path: projection.path, to, from }, { path: llm.checkpoint.path, width: l.hiddenSize }),
    );
  }
  const width = encoder.type === "eva_vit" ? encoder.hiddenSize : 0;
  if (q && q.encoderWidth !== width) {
    throw new Error(
      `${qformer?.path} and ${vit.path} do not match: the Q-Former expects features of width ${q.encoderWidth}, ` +
        `but the image encoder's have ${width}`,
    );
  }
  const joined = 4 * width;
  const expected = q?.hiddenSize ?? joined;
  if (from === expected) return;
  if (q && from === joined) {
    throw new Error(
      `${projection.path}: ${shape}, for a model without a Q-Former; leave out --qformer ${qformer?.path}`,
    );
  }
  const without = q ? "" : "; if it was trained with a Q-Former, pass that with --qformer";
  throw new Error(`${projection.path}: ${shape}, but its input has width ${expected}${without}`);
}

/**
 * The norm after the image encoder is usually in the Q-Former's file. Without one the original keeps its initial values (scale
 * 1, bias 0), unless the file of the projection or of the encoder has it.
 */
function lnVisionWeights(vit: Checkpoint, projection: Checkpoint, width: number): WeightSource {
  const created = weightsInMemory("the initial ln_vision", {
    "ln_vision.weight": { shape: [width], data: new Float32Array(width).fill(1) },
    "ln_vision.bias": { shape: [width], data: new Float32Array(width) },
  });
  return overlayWeights([projection, vit, created]);
}

type EvaVitJson = Extract<ModelFolderJson["encoder"], { type: "eva_vit" }>;
type QFormerJson = NonNullable<ModelFolderJson["qformer"]>;

/** EVA-CLIP g. BLIP-2 and MiniGPT-4 do not run the last of its 40 blocks. */
const evaClipG = { width: 1408, blocks: 40 };

/** Reads the dimensions of the image encoder from its tensors. @throws Error naming the file if a tensor is missing or the number of heads is unknown */
function readVitConfig(checkpoint: Checkpoint, { vitHeads, vitLayers }: Heads): EvaVitJson {
  const [width = 0, , patch = 0] = requireShape(checkpoint, "patch_embed.proj.weight", 4);
  const [, cells = 0] = requireShape(checkpoint, "pos_embed", 3);
  const side = Math.sqrt(cells - 1);
  if (!Number.isInteger(side) || side < 1) {
    throw new Error(
      `${checkpoint.path}: pos_embed has ${cells} positions; expected a square number of patches and a class token`,
    );
  }
  const stored = countLayers(checkpoint, /^blocks\.(\d+)\./);
  const defaultLayers = width === evaClipG.width && stored === evaClipG.blocks ? stored - 1 : stored;
  const layers = vitLayers ?? defaultLayers;
  if (layers > stored) throw new Error(`${checkpoint.path} has ${stored} blocks, fewer than --vit-layers ${layers}`);
  return {
    type: "eva_vit",
    image_size: side * patch,
    patch_size: patch,
    hidden_size: width,
    num_hidden_layers: layers,
    num_attention_heads: vitHeads ?? defaultHeads(checkpoint, "--vit-heads", width, 88),
    intermediate_size: requireShape(checkpoint, "blocks.0.mlp.fc1.weight", 2)[0] ?? 0,
  };
}

/** Reads the dimensions of the Q-Former from its tensors. @throws Error as `readVitConfig` */
function readQFormerConfig(checkpoint: Checkpoint, { qformerHeads }: Heads): QFormerJson {
  const [, queries = 0, width = 0] = requireShape(checkpoint, "query_tokens", 3);
  const layer = (i: number | string, name: string) => `Qformer.bert.encoder.layer.${i}.${name}`;
  const layers = countLayers(checkpoint, /^Qformer\.bert\.encoder\.layer\.(\d+)\./);
  const hasCrossAttention = (i: number) => checkpoint.tensors.has(layer(i, "crossattention.self.key.weight"));
  const second = Array.from({ length: layers }, (_, i) => i).find((i) => i > 0 && hasCrossAttention(i));
  return {
    num_query_tokens: queries,
    hidden_size: width,
    num_hidden_layers: layers,
    num_attention_heads: qformerHeads ?? defaultHeads(checkpoint, "--qformer-heads", width, 64),
    intermediate_size: requireShape(checkpoint, layer(0, "intermediate_query.dense.weight"), 2)[0] ?? 0,
    encoder_width: requireShape(checkpoint, layer(0, "crossattention.self.key.weight"), 2)[1] ?? 0,
    cross_attention_frequency: second ?? Math.max(1, layers),
  };
}

/** Widths of the language model and of the projection's input. */
function projectionDimensions(checkpoint: Checkpoint): readonly [to: number, from: number] {
  const [to = 0, from = 0] = requireShape(checkpoint, "llama_proj.weight", 2);
  return [to, from];
}

function defaultHeads({ path }: Checkpoint, option: string, width: number, headSize: number): number {
  if (width % headSize === 0) return width / headSize;
  throw new Error(
    `${path}: a width of ${width} is not a multiple of ${headSize}; pass the number of heads with ${option}`,
  );
}

function requireShape({ path, tensors }: Checkpoint, name: string, rank: number): readonly number[] {
  const shape = tensors.get(name)?.shape;
  if (!shape) throw new Error(`${path} has no tensor "${name}", which its dimensions are read from`);
  if (shape.length !== rank)
    throw new Error(`${path}: "${name}" is ${formatShape(shape)}, expected ${rank} dimensions`);
  return shape;
}

/** Number of layers: one more than the largest index in the tensor names. */
function countLayers({ tensors }: Checkpoint, pattern: RegExp): number {
  const numbers = [...tensors.keys()].map((name) => Number(pattern.exec(name)?.[1] ?? -1));
  return 1 + numbers.reduce((largest, n) => Math.max(largest, n), -1);
}
