/** Recipes that pre-train a Q-Former on pictures and texts alone: BLIP-2's first stage (arXiv 2301.12597, section 3.1). */
import { z } from "zod";
import { encoderSchema, qformerSchema } from "../../models/model-folder.ts";
import { datasetsSchema, positive, runSchema } from "../recipe-sections.ts";
import { representationLosses } from "../stages/representation.ts";

export const qformerArch = "blip2_qformer";

const modelSchema = z
  .strictObject({
    arch: z.literal(qformerArch),
    encoder: encoderSchema,
    /** Weights of the frozen encoder. */
    encoder_ckpt: z.string().min(1),
    qformer: qformerSchema,
    /** An earlier run's folder or a weight file, such as the released first-stage checkpoint, to go on from. */
    qformer_ckpt: z.string().min(1).optional(),
    /** A BERT whose weights the text side begins with, and the queries' feed-forward layers; left out, all begins at random. */
    bert_ckpt: z.string().min(1).optional(),
    /** `vocab.txt`, `tokenizer.json`, or the folder of one; by default that of `bert_ckpt`. */
    tokenizer: z.string().min(1).optional(),
    /** Rows of the position table, at least `max_txt_len`. */
    max_position_embeddings: positive.default(512),
    /** Size of the space in which pictures and texts are compared. */
    embed_dim: positive.default(256),
    /** What is learned: image-text contrast, image-text matching, image-grounded text generation. */
    losses: z
      .array(z.enum(representationLosses))
      .min(1)
      .default([...representationLosses]),
    /** What is trained beside the heads; `ln_vision` is the norm between the encoder and the Q-Former. */
    trained: z
      .array(z.enum(["qformer", "ln_vision"]))
      .min(1)
      .default(["qformer", "ln_vision"]),
    encoder_precision: z.enum(["float32", "int8"]).default("float32"),
    /** Longer texts, [CLS] and [SEP] included, are cut. */
    max_txt_len: positive.default(32),
  })
  .refine(({ tokenizer, bert_ckpt: bert }) => tokenizer !== undefined || bert !== undefined, {
    path: ["tokenizer"],
    error: "is missing: give a BERT's vocab.txt or tokenizer.json, or a bert_ckpt folder that holds one",
  })
  .refine((model) => model.max_txt_len <= model.max_position_embeddings, {
    path: ["max_txt_len"],
    error: "is more than max_position_embeddings",
  });

export const qformerRecipeSchema = z.strictObject({ model: modelSchema, datasets: datasetsSchema, run: runSchema });

export type QFormerRecipe = z.infer<typeof qformerRecipeSchema>;
