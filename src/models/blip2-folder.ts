/**
 * What BLIP-2's first pre-training stage leaves: `config.json`, the weights of the frozen encoder and of the Q-Former with its
 * heads, and BERT's `vocab.txt` with `tokenizer_config.json`.
 */
import { resolve } from "node:path";
import { z } from "zod";
import { type Checkpoint, openCheckpoint } from "../formats/open.ts";
import { loadWordPiece, type WordPieceTokenizer } from "../tokenizers/wordpiece.ts";
import type { Blip2Config } from "./blip2.ts";
import {
  encoderConfig,
  encoderSchema,
  folderJson,
  qformerDimensions,
  qformerSchema,
  readFolderJson,
} from "./model-folder.ts";

const positive = z.number().int().positive();

const schema = z.strictObject({
  model_type: z.literal("blip2_qformer"),
  encoder: encoderSchema,
  /** The dimensions of the released Q-Former, unless others are given; BERT's vocabulary has [DEC] as its last word. */
  qformer: qformerSchema.extend({
    vocab_size: positive.default(30523),
    max_position_embeddings: positive.default(512),
  }),
  /** Size of the space in which images and texts are compared. */
  embed_dim: positive.default(256),
  /** Tokens of a text that are read, [CLS] and [SEP] included. */
  max_txt_len: positive.default(32),
  weights: z.strictObject({
    encoder: z.string().min(1),
    /** `query_tokens`, `Qformer`, `ln_vision`, `vision_proj`, `text_proj`, `itm_head`, `temp`. */
    qformer: z.string().min(1),
  }),
});

/** The JSON of such a folder's `config.json`. */
export type Blip2FolderJson = z.input<typeof schema>;

export interface Blip2Folder extends AsyncDisposable {
  readonly path: string;
  readonly config: Blip2Config;
  readonly maxTextLength: number;
  readonly tokenizer: WordPieceTokenizer;
  readonly sources: Readonly<Record<"encoder" | "qformer", Checkpoint>>;
  close(): Promise<void>;
}

/** Opens the folder; weights are read later, one at a time. @throws Error naming file and field, and what is wrong */
export async function openBlip2Folder(path: string): Promise<Blip2Folder> {
  const file = folderJson(path);
  const { data: json, error } = schema.safeParse(await readFolderJson(path, "blip2_qformer"));
  if (!json) throw new Error(`${file} is no description of a pre-trained Q-Former:\n${z.prettifyError(error)}`);
  const { vocab_size: vocabSize, max_position_embeddings: maxPositionEmbeddings, ...image } = json.qformer;
  const tokenizer = await loadWordPiece(path);
  const refuse = (field: string, why: string) => new Error(`${file}: ${field} ${why}`);
  if (tokenizer.size > vocabSize) {
    throw refuse("qformer.vocab_size", `is ${vocabSize}, but the vocabulary beside it has ${tokenizer.size} words`);
  }
  if (json.max_txt_len > maxPositionEmbeddings) {
    throw refuse("max_txt_len", `is ${json.max_txt_len}, but the Q-Former has ${maxPositionEmbeddings} positions`);
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
        qformer: { ...qformerDimensions(image), vocabSize, maxPositionEmbeddings },
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
