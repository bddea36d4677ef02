/** The parts that a pre-training recipe joins: the way of a picture, and the text side with its tokenizer. */
import { openCheckpoint } from "../../checkpoints/checkpoint.ts";
import { bertWeights } from "../../models/bert-weights.ts";
import type { Blip2Config } from "../../models/blip2.ts";
import { encoderConfig, qformerConfig } from "../../models/model-folder.ts";
import type { QFormerConfig } from "../../models/qformer.ts";
import { initialHeads, initialLnVision, initialQFormer } from "../../models/qformer-initial.ts";
import { layeredWeights } from "../../nn/layered-weights.ts";
import { weightsInMemory } from "../../nn/weights.ts";
import { Random } from "../../tensor/random.ts";
import { loadWordPiece, type WordPieceTokenizer } from "../../text/wordpiece.ts";
import { openVision, qformerFile, startsLnVision, type VisionParts } from "../vision-parts.ts";
import type { QFormerRecipe } from "./recipe.ts";

export interface QFormerParts extends VisionParts {
  readonly config: Blip2Config;
  readonly tokenizer: WordPieceTokenizer;
  /** The BERT that the text side begins with; none where it begins at random. */
  readonly bert: string | undefined;
}

/** Opens the files of a recipe. @throws Error naming the file and what does not fit */
export async function openQFormerParts({ model, run }: QFormerRecipe): Promise<QFormerParts> {
  const tokenizer = await loadWordPiece(model.tokenizer ?? model.bert_ckpt ?? "");
  const qformer: QFormerConfig = {
    ...(qformerConfig(model.qformer).qformer as QFormerConfig),
    vocabSize: tokenizer.size,
    maxPositionEmbeddings: model.max_position_embeddings,
  };
  const config: Blip2Config = { encoder: encoderConfig(model.encoder), qformer, embedDim: model.embed_dim };
  const random = new Random(run.seed);
  const atRandom = weightsInMemory("new weights", {
    ...initialQFormer(qformer, random),
    ...initialHeads(qformer, model.embed_dim, random),
    ...(startsLnVision(config, model.trained) && initialLnVision(qformer.encoderWidth, random)),
  });
  const bert = model.bert_ckpt === undefined ? undefined : await openCheckpoint(model.bert_ckpt);
  try {
    const vision = await openVision({
      config,
      files: [...(model.qformer_ckpt ? [qformerFile(model.qformer_ckpt)] : []), model.encoder_ckpt],
      initial: bert ? layeredWeights([bertWeights(bert, qformer, random), atRandom]) : atRandom,
      trained: model.trained,
      encoderPrecision: model.encoder_precision,
    });
    const close = async () => {
      await vision.close();
      await bert?.close();
    };
    return { ...vision, config, tokenizer, bert: bert?.path, close };
  } catch (error) {
    await bert?.close();
    throw error;
  }
}
