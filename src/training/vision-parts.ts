/** The vision tower in training: its weight files, its frozen part and its trained weights. */
import { createHash } from "node:crypto";
import { createReadStream, existsSync, statSync } from "node:fs";
import { join } from "node:path";
import { pipeline } from "node:stream/promises";
import type { FrozenPart } from "../data/frozen-features.ts";
import { type Checkpoint, openCheckpoint } from "../formats/open.ts";
import { evaVitMatrices } from "../models/eva-vit.ts";
import { type FrozenDepth, imageSpec, type VisionConfig } from "../models/minigpt4.ts";
import { Weights } from "../nn/weights.ts";
import type { Graph } from "../tensor/graph.ts";
import { quantizationPolicy } from "../tensor/quant/quantization.ts";
import { overlayWeights, type WeightSource } from "../tensor/weight-source.ts";

/** Parts of the vision tower, identified by the names of their weights. */
type VisionPart = "encoder" | "ln_vision" | "queries" | "qformer" | "projection";

export interface VisionParts {
  readonly config: VisionConfig;
  /** Initial values of all weights. */
  readonly image: WeightSource;
  /** The layers before the first trained one. */
  readonly frozen: FrozenPart;
  /** Identifies the frozen part: everything that its output depends on besides the image. */
  readonly frozenKey: string;
  isTrained(name: string): boolean;
  /** The weight file of each part; undefined where it starts at random. */
  readonly origins: Readonly<Record<string, string | undefined>>;
  close(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

export interface VisionOptions {
  readonly config: VisionConfig;
  /** Weight files. The first one that has a weight is used. */
  readonly files: readonly string[];
  /** Weights that are in none of the files. */
  readonly initial: WeightSource;
  readonly trained: readonly string[];
  readonly encoderQuantization: "float32" | "int8";
}

/** @throws Error naming the file that cannot be opened, or the frozen part without weights */
export async function openVision({
  config,
  files,
  initial,
  trained,
  encoderQuantization,
}: VisionOptions): Promise<VisionParts> {
  const open: Checkpoint[] = [];
  const close = async () => {
    for (const checkpoint of open) await checkpoint.close();
  };
  try {
    for (const file of files) open.push(await openCheckpoint(file));
    const image = overlayWeights([...open, initial]);
    const depth = depthOf(trained);
    const frozen: FrozenPart = {
      config,
      depth,
      weights(graph: Graph) {
        const quantization = quantizationPolicy(encoderQuantization, evaVitMatrices);
        const weights = new Weights(graph, image, { quantization });
        return { encoder: weights, qformer: weights, projection: weights };
      },
    };
    const origins = originsOf(config, open, {
      projection: initial.tensors.has("llama_proj.weight"),
      lnVision: image.tensors.has("ln_vision.weight"),
    });
    // Without a Q-Former no file has `ln_vision`, which then stays at its initial ones and zeros, as in the original.
    const canBeNew = (part: string) => part === "projection" || (part === "ln_vision" && !config.qformer);
    for (const [part, origin] of Object.entries(origins)) {
      if (origin === undefined && !canBeNew(part) && !trained.some((one) => covers(one, part))) {
        throw new Error(
          `The ${part} is frozen, but no file has weights for it. Set model.qformer_ckpt, or add it to model.trained`,
        );
      }
    }
    const seen = open.filter(({ tensors }) => [...tensors.keys()].some((name) => isFrozenBefore(depth, name)));
    const { encoder, qformer } = config;
    const frozenKey = JSON.stringify({
      depth,
      encoder,
      qformer: depth === "qformer" ? qformer : undefined,
      spec: imageSpec(encoder),
      // The key of existing caches.
      precision: encoderQuantization,
      weights: await Promise.all(seen.map(({ path }) => hashOf(path))),
    });
    const isTrained = (name: string) => trained.some((part) => belongsTo(part, name));
    return { config, image, frozen, frozenKey, isTrained, origins, close, [Symbol.asyncDispose]: close };
  } catch (error) {
    await close();
    throw error;
  }
}

/** Whether training one part trains the other: the queries belong to the Q-Former. */
export function covers(trained: string, part: string): boolean {
  return trained === part || (trained === "qformer" && part === "queries");
}

/** Whether `ln_vision` needs initial weights: a ViT always has it, other encoders where it is trained. */
export function createsLnVision({ encoder }: VisionConfig, trained: readonly string[]): boolean {
  return encoder.type === "eva_vit" || trained.includes("ln_vision");
}

/** The weight file of a Q-Former: the path itself, or a file in the folder of a run. */
export function qformerFile(path: string): string {
  return existsSync(path) && statSync(path).isDirectory() ? join(path, "qformer.safetensors") : path;
}

function depthOf(trained: readonly string[]): FrozenDepth {
  if (trained.includes("ln_vision")) return "vit";
  return trained.some((part) => part === "queries" || part === "qformer") ? "encoder" : "qformer";
}

function isFrozenBefore(depth: FrozenDepth, name: string): boolean {
  if (belongsTo("encoder", name)) return true;
  if (depth === "vit") return false;
  return belongsTo("ln_vision", name) || (depth === "qformer" && belongsTo("qformer", name));
}

const heads = ["vision_proj.", "text_proj.", "itm_head."];

function belongsTo(part: string, name: string): boolean {
  switch (part) {
    case "projection":
      return name.startsWith("llama_proj.");
    case "queries":
      return name === "query_tokens";
    case "qformer":
      return (
        name === "query_tokens" ||
        name === "temp" ||
        name.startsWith("Qformer.") ||
        heads.some((head) => name.startsWith(head))
      );
    case "ln_vision":
      return name.startsWith("ln_vision.");
    case "encoder":
      return !(["projection", "qformer", "ln_vision"] as const).some((other) => belongsTo(other, name));
    default:
      return false;
  }
}

function originsOf(
  { qformer }: VisionConfig,
  files: readonly Checkpoint[],
  has: { readonly projection: boolean; readonly lnVision: boolean },
): VisionParts["origins"] {
  const parts: readonly VisionPart[] = [
    "encoder",
    ...(has.lnVision ? (["ln_vision"] as const) : []),
    ...(qformer ? (["queries", "qformer"] as const) : []),
    ...(has.projection ? (["projection"] as const) : []),
  ];
  return Object.fromEntries(
    parts.map((part) => {
      const isOwn = (name: string) => belongsTo(part, name) && (part !== "qformer" || name.startsWith("Qformer."));
      return [part, files.find(({ tensors }) => [...tensors.keys()].some(isOwn))?.path];
    }),
  );
}

async function hashOf(path: string): Promise<string> {
  const hash = createHash("sha256");
  await pipeline(createReadStream(path), hash);
  return hash.digest("hex");
}
