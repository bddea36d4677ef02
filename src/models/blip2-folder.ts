/**
 * Folders of BLIP-2's first pre-training stage: `config.json`, the weights of the frozen encoder and of the Q-Former with its
 * heads, and BERT's `vocab.txt` with `tokenizer_config.json`.
 */
import { resolve } from "node:path";
import { z } from "zod";
import { type Checkpoint, openCheckpoint } from "../formats/open.ts";
import { loadWordPiece, type WordPieceTokenizer } from "../tokenizers/wordpiece.ts";
import type { Blip2Config } from "./blip2.ts";
import {
  configPath,
  encoderConfig,
  encoderSchema,
  qformerConfig,
  qformerSchema,
  readFolderConfig,
} from "./model-folder.ts";

const positive = z.number().int().positive();

const schema = z.strictObject({
  model_type: z.literal("blip2_qformer"),
  encoder: encoderSchema,
  /** By default the dimensions of the released Q-Former; the vocabulary is BERT's with [DEC] as last token. */
  qformer: qformerSchema.extend({
    vocab_size: positive.default(30523),
    max_position_embeddings: positive.default(512),
  }),
  /** Dimensions of the space in which images and texts are compared. */
  embed_dim: positive.default(256),
  /** Longest text in tokens, with [CLS] and [SEP]. */
  max_txt_len: positive.default(32),
  weights: z.strictObject({
    encoder: z.string().min(1),
    /** Contains `query_tokens`, `Qformer`, `ln_vision`, `vision_proj`, `text_proj`, `itm_head` and `temp`. */
    qformer: z.string().min(1),
  }),
});

/** The JSON of its `config.json`. */
export type Blip2FolderJson = z.input<typeof schema>;

/** An open folder. Weights are read on demand. */
export interface Blip2Folder extends AsyncDisposable {
  readonly path: string;
  readonly config: Blip2Config;
  readonly maxTextLength: number;
  readonly tokenizer: WordPieceTokenizer;
  readonly sources: Readonly<Record<"encoder" | "qformer", Checkpoint>>;
  close(): Promise<void>;
}

/** Opens a folder of the first pre-training stage. @throws Error naming the file and the field that is wrong */
export async function openBlip2Folder(path: string): Promise<Blip2Folder> {
  const file = configPath(path);
  const { data: json, error } = schema.safeParse(await readFolderConfig(path, "blip2_qformer"));
  if (!json) throw new Error(`${file} does not describe a pre-trained Q-Former:\n${z.prettifyError(error)}`);
  const { vocab_size: vocabSize, max_position_embeddings: maxPositionEmbeddings, ...image } = json.qformer;
  const tokenizer = await loadWordPiece(path);
  if (tokenizer.size > vocabSize) {
    throw new Error(`${file}: qformer.vocab_size is ${vocabSize}, but the vocabulary has ${tokenizer.size} tokens`);
  }
  if (json.max_txt_len > maxPositionEmbeddings) {
    throw new Error(
      `${file}: max_txt_len is ${json.max_txt_len}, but the Q-Former has ${maxPositionEmbeddings} positions`,
    );
  }
  const encoder = await openCheckpoint(resolve(path, json.weights.encoder));
  try {
    const qformer = await openCheckpoint(resolve(path, json.weights.qformer));
    const close = async () => {
      await encoder.close();
      await qformer.close();
    };
    return {
      path,
      config: {
        encoder: encoderConfig(json.encoder),
        qformer: { ...qformerConfig(image), vocabSize, maxPositionEmbeddings },
        embedDim: json.embed_dim,
      },
      maxTextLength: json.max_txt_len,
      tokenizer,
      sources: { encoder, qformer },
      close,
      [Symbol.asyncDispose]: close,
    };
  } catch (cause) {
    await encoder.close();
    throw cause;
  }
}
