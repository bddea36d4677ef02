/** The models of a recipe: the vision tower with the frozen language model, or with the text side of a Q-Former. */
import { existsSync, statSync } from "node:fs";
import { join } from "node:path";
import { openCheckpoint } from "../formats/open.ts";
import { pull } from "../hub/pull.ts";
import { bertWeights } from "../models/bert-weights.ts";
import type { Blip2Config } from "../models/blip2.ts";
import { type OpenLlama, openLlama } from "../models/llama-folder.ts";
import { featureShape, frozenShape, type MiniGPT4Config } from "../models/minigpt4.ts";
import { encoderConfig, qformerConfig } from "../models/model-folder.ts";
import type { QFormerConfig } from "../models/qformer.ts";
import { initialHeads, initialLnVision, initialProjection, initialQFormer } from "../models/qformer-init.ts";
import { Random } from "../tensor/random.ts";
import { overlayWeights, type WeightSource, weightsInMemory } from "../tensor/weight-source.ts";
import { loadWordPiece, type WordPieceTokenizer } from "../tokenizers/wordpiece.ts";
import { type MiniGPT4Recipe, type QFormerRecipe, trainsHead } from "./recipe.ts";
import { createsLnVision, openVision, qformerFile, type VisionParts } from "./vision-parts.ts";

export interface ModelParts extends VisionParts {
  readonly config: MiniGPT4Config;
  readonly llm: OpenLlama;
}

/** Opens the files of a recipe. @throws Error naming the file and what does not fit */
export async function openParts({ model, run }: MiniGPT4Recipe): Promise<ModelParts> {
  const llm = await openLlama(existsSync(model.llm) ? model.llm : await pull(model.llm));
  try {
    const config: MiniGPT4Config = {
      encoder: encoderConfig(model.encoder),
      qformer: model.qformer && qformerConfig(model.qformer),
      llm: llm.config,
    };
    const vision = await openVision({
      config,
      files: [
        ...trainedFiles(model.ckpt),
        ...(model.qformer_ckpt ? [qformerFile(model.qformer_ckpt)] : []),
        model.encoder_ckpt,
      ],
      initial: initialWeights(config, model.trained, new Random(run.seed)),
      trained: model.trained,
      encoderQuantization: model.encoder_quantization,
    });
    if (trainsHead(model) && vision.origins.projection === undefined) {
      await vision.close();
      throw new Error("The contrastive head is trained on image tokens of a trained model: set model.ckpt");
    }
    const close = async () => {
      await llm.checkpoint.close();
      await vision.close();
    };
    return { ...vision, config, llm, close, [Symbol.asyncDispose]: close };
  } catch (error) {
    await llm.checkpoint.close();
    throw error;
  }
}

/** The weight files of `model.ckpt`: a file, or those of a run's folder. */
function trainedFiles(path: string | undefined): string[] {
  if (path === undefined) return [];
  if (!existsSync(path))
    throw new Error(`model.ckpt: ${path} does not exist. Expected a weight file or the folder of a run`);
  if (!statSync(path).isDirectory()) return [path];
  const files = ["projection.safetensors", "qformer.safetensors"].map((name) => join(path, name)).filter(existsSync);
  if (files.length === 0)
    throw new Error(`model.ckpt: ${path} has no projection.safetensors, which a finished run writes`);
  return files;
}

/** Random initial weights. */
function initialWeights(config: MiniGPT4Config, trained: readonly string[], random: Random): WeightSource {
  const { encoder, qformer, llm } = config;
  const [, cellWidth] = featureShape(encoder);
  const [, width] = frozenShape(config, "qformer");
  const arrays = {
    ...(qformer && initialQFormer(qformer, random)),
    ...initialProjection(width, llm.hiddenSize, random),
    ...(createsLnVision(config, trained) && initialLnVision(cellWidth, random)),
  };
  return weightsInMemory("new weights", arrays);
}

export interface QFormerParts extends VisionParts {
  readonly config: Blip2Config;
  readonly tokenizer: WordPieceTokenizer;
  /** The BERT that initialises the text side; undefined where it starts at random. */
  readonly bert: string | undefined;
}

/** Opens the files of a recipe. @throws Error naming the file and what does not fit */
export async function openQFormerParts({ model, run }: QFormerRecipe): Promise<QFormerParts> {
  const tokenizer = await loadWordPiece(model.tokenizer ?? model.bert_ckpt ?? "");
  const qformer: QFormerConfig = {
    ...qformerConfig(model.qformer),
    vocabSize: tokenizer.size,
    maxPositionEmbeddings: model.max_position_embeddings,
  };
  const config: Blip2Config = { encoder: encoderConfig(model.encoder), qformer, embedDim: model.embed_dim };
  const random = new Random(run.seed);
  const randomWeights = weightsInMemory("new weights", {
    ...initialQFormer(qformer, random),
    ...initialHeads(qformer, model.embed_dim, random),
    ...(createsLnVision(config, model.trained) && initialLnVision(qformer.encoderWidth, random)),
  });
  const bert = model.bert_ckpt === undefined ? undefined : await openCheckpoint(model.bert_ckpt);
  try {
    const vision = await openVision({
      config,
      files: [...(model.qformer_ckpt ? [qformerFile(model.qformer_ckpt)] : []), model.encoder_ckpt],
      initial: bert ? overlayWeights([bertWeights(bert, qformer, random), randomWeights]) : randomWeights,
      trained: model.trained,
      encoderQuantization: model.encoder_quantization,
    });
    const close = async () => {
      await vision.close();
      await bert?.close();
    };
    return { ...vision, config, tokenizer, bert: bert?.path, close, [Symbol.asyncDispose]: close };
  } catch (error) {
    await bert?.close();
    throw error;
  }
}
