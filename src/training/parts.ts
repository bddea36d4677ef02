/** The parts that a recipe joins: what is frozen, what is trained, and the values that training begins with. */
import { createHash } from "node:crypto";
import { createReadStream, existsSync, statSync } from "node:fs";
import { join } from "node:path";
import { pipeline } from "node:stream/promises";
import { type Checkpoint, openCheckpoint } from "../checkpoints/checkpoint.ts";
import { pull } from "../checkpoints/pull.ts";
import type { FrozenPart } from "../data/features/frozen-features.ts";
import { int8Choice } from "../models/eva-vit.ts";
import { type FrozenDepth, frozenShape, imageSpec, type MiniGPT4Config } from "../models/minigpt4.ts";
import { encoderConfig, qformerConfig } from "../models/model-folder.ts";
import { type OpenLlama, openLlama } from "../models/open-llama.ts";
import { initialProjection, initialQFormer } from "../models/qformer-initial.ts";
import { layeredWeights } from "../nn/layered-weights.ts";
import { type WeightSource, Weights, weightsInMemory } from "../nn/weights.ts";
import type { Graph } from "../tensor/graph.ts";
import { Random } from "../tensor/random.ts";
import { type Recipe, trainsHead } from "./recipe.ts";

type Part = Recipe["model"]["trained"][number];

export interface ModelParts {
  readonly config: MiniGPT4Config;
  readonly llm: OpenLlama;
  /** Encoder, Q-Former and projection as the run begins. */
  readonly image: WeightSource;
  /** What is frozen before the first trained layer. */
  readonly frozen: FrozenPart;
  /** Everything that the frozen part's output depends on besides the picture, in one short name. */
  readonly frozenKey: string;
  isTrained(name: string): boolean;
  /** The file that each part's weights come from; none where they begin at random. */
  readonly origins: Readonly<Record<string, string | undefined>>;
  close(): Promise<void>;
}

/** Opens the files of a recipe. @throws Error naming the file and what does not fit */
export async function openParts({ model, run }: Recipe): Promise<ModelParts> {
  const llm = await openLlama(existsSync(model.llm) ? model.llm : await pull(model.llm));
  const open: Checkpoint[] = [];
  const close = async () => {
    await llm.checkpoint.close();
    for (const checkpoint of open) await checkpoint.close();
  };
  try {
    const config: MiniGPT4Config = {
      encoder: encoderConfig(model.encoder),
      ...qformerConfig(model.qformer),
      llm: llm.config,
    };
    const files = [
      ...trainedFiles(model.ckpt),
      ...(model.qformer_ckpt ? [model.qformer_ckpt] : []),
      model.encoder_ckpt,
    ];
    for (const file of files) open.push(await openCheckpoint(file));
    const image = layeredWeights([...open, initialWeights(config, new Random(run.seed))]);
    const isTrained = (name: string) => model.trained.some((part) => belongsTo(part, name));
    const depth: FrozenDepth = model.trained.some((part) => part === "queries" || part === "qformer")
      ? "encoder"
      : "qformer";
    const frozen: FrozenPart = {
      config,
      depth,
      weights(graph: Graph) {
        const weights = new Weights(graph, image, model.encoder_precision === "int8" ? { int8: int8Choice } : {});
        return { encoder: weights, qformer: weights, projection: weights };
      },
    };
    const origins = originsOf(config, open);
    for (const [part, origin] of Object.entries(origins)) {
      if (origin === undefined && part !== "projection" && !model.trained.some((one) => covers(one, part))) {
        throw new Error(
          `The ${part} of the model is frozen, but no file has weights for it: give model.qformer_ckpt, or train it (model.trained)`,
        );
      }
    }
    if (trainsHead(model) && origins.projection === undefined) {
      throw new Error("The contrastive head is trained on image tokens of a trained model: give model.ckpt");
    }
    const seen = open.filter(({ tensors }) =>
      [...tensors.keys()].some((name) => belongsTo("encoder", name) || (depth === "qformer" && !isProjection(name))),
    );
    const spec = imageSpec(config.encoder);
    const { encoder, qformer } = config;
    const frozenKey = JSON.stringify({
      depth,
      encoder,
      ...(depth === "qformer" && { qformer }),
      spec,
      precision: model.encoder_precision,
      weights: await Promise.all(seen.map(({ path }) => hashOf(path))),
    });
    return { config, llm, image, frozen, frozenKey, isTrained, origins, close };
  } catch (error) {
    await close();
    throw error;
  }
}

const isProjection = (name: string) => name.startsWith("llama_proj.");

/** The names of a part's weights; the contrastive head's are not among those of a picture's way. */
function belongsTo(part: Part | "encoder", name: string): boolean {
  if (part === "contrastive_head") return false;
  if (part === "projection") return isProjection(name);
  if (part === "queries") return name === "query_tokens";
  if (part === "qformer") return name === "query_tokens" || name.startsWith("Qformer.");
  return !isProjection(name) && !belongsTo("qformer", name);
}

function originsOf({ qformer }: MiniGPT4Config, files: readonly Checkpoint[]): ModelParts["origins"] {
  const parts = ["encoder", ...(qformer ? (["queries", "qformer"] as const) : []), "projection"] as const;
  return Object.fromEntries(
    parts.map((part) => {
      const isOwn = (name: string) => belongsTo(part, name) && (part !== "qformer" || name !== "query_tokens");
      return [part, files.find(({ tensors }) => [...tensors.keys()].some(isOwn))?.path];
    }),
  );
}

/** Whether training one part trains the other: the queries are the Q-Former's. */
export function covers(trained: Part, part: string): boolean {
  return trained === part || (trained === "qformer" && part === "queries");
}

/** An earlier stage's result: a file, or the folder of a run. */
function trainedFiles(path: string | undefined): string[] {
  if (path === undefined) return [];
  if (!existsSync(path)) throw new Error(`model.ckpt: ${path} is not there; expected a weight file or a run's folder`);
  if (!statSync(path).isDirectory()) return [path];
  const files = ["projection.safetensors", "qformer.safetensors"].map((name) => join(path, name)).filter(existsSync);
  if (files.length === 0) throw new Error(`model.ckpt: ${path} holds no projection.safetensors; has the run ended?`);
  return files;
}

/** What no file has begins at random. */
function initialWeights(config: MiniGPT4Config, random: Random): WeightSource {
  const { qformer, llm } = config;
  const [, width] = frozenShape(config, "qformer");
  const arrays = {
    ...(qformer && initialQFormer(qformer, random)),
    ...initialProjection(width, llm.hiddenSize, random),
  };
  return weightsInMemory("new weights", arrays);
}

async function hashOf(path: string): Promise<string> {
  const hash = createHash("sha256");
  await pipeline(createReadStream(path), hash);
  return hash.digest("hex");
}
