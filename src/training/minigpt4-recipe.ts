/** Recipes that train what lies between a frozen image encoder and a frozen language model. */
import { z } from "zod";
import { encoderSchema, qformerSchema } from "../models/model-folder.ts";
import { promptTemplates } from "../text/prompts.ts";
import { count, datasetsSchema, positive, runSchema } from "./recipe-sections.ts";

const promptSchema = z.strictObject({
  text: z.string().includes("<ImageHere>"),
  /** Ends every answer, and is learned with it; by default the model's `end_sym`. */
  end_sym: z.string().min(1).optional(),
  /** How often this prompt is drawn, relative to the others. */
  sample_ratio: z.number().positive().default(1),
});

const modelSchema = z.strictObject({
  arch: z.literal("minigpt4"),
  encoder: encoderSchema,
  /** Weights of the frozen encoder. */
  encoder_ckpt: z.string().min(1),
  /** Left out, neighbouring patches are joined, as in the Llama 2 release. */
  qformer: qformerSchema.optional(),
  /** Weights that the Q-Former has; left out, it begins with random ones. */
  qformer_ckpt: z.string().min(1).optional(),
  /** What an earlier stage trained: a `.pth` or safetensors file, or a run's folder. */
  ckpt: z.string().min(1).optional(),
  /**
   * What is trained; the rest is frozen. The contrastive head is trained by itself, on image tokens as they are in the end:
   * no captions are learned then, and the steps and rates of `run` are the head's.
   */
  trained: z
    .array(z.enum(["projection", "queries", "qformer", "ln_vision", "contrastive_head"]))
    .min(1)
    .default(["projection"]),
  /** The frozen language model: a known name, a GGUF file or a folder. */
  llm: z.string().min(1),
  /** Arithmetic of the frozen parts' products, where 8 bits are enough: see `int8Choice` of each network. */
  encoder_precision: z.enum(["float32", "int8"]).default("float32"),
  llm_precision: z.enum(["float32", "int8"]).default("float32"),
  /** How a conversation is written for this language model. */
  conversation: z.enum(Object.keys(promptTemplates) as [string, ...string[]]).default("vicuna-v0"),
  /** What stands before an answer. The first is how descriptions are asked for later. */
  prompts: z.array(promptSchema).min(1).optional(),
  /** A file with a prompt in each line that holds `<ImageHere>`; the other lines are left out. */
  prompt_path: z.string().min(1).optional(),
  /** What is put around each prompt, at the place of `{}`. */
  prompt_template: z.string().includes("{}").default("{}"),
  /** Ends every answer, and is learned with it. */
  end_sym: z.string().min(1).default("\n"),
  /** Longer answers, end included, are cut. */
  max_txt_len: positive.default(32),
});

const captionRunSchema = z.strictObject({
  ...runSchema.shape,
  /**
   * Whether the language model is read and differentiated one layer at a time, with one layer's weights in memory and its
   * activations computed a second time. Left out, it is where its weights would take more than half of the memory.
   */
  gradient_checkpointing: z.boolean().optional(),
  /** Different answers of one picture that are learned in one step. */
  answers_per_picture: positive.default(1),
  /** Image-text contrastive learning before the stage itself; left out, there is none. */
  contrastive: z
    .strictObject({
      steps: positive,
      batch_size: positive,
      init_lr: z.number().positive(),
      warmup_steps: count.default(0),
      /** A data set whose texts name the classes of the encoder's classifier, one picture a class: the classifier teaches too. */
      class_names: z.string().optional(),
    })
    .optional(),
  /** Watched pictures that are described then. */
  describe: count.default(0),
});

export const miniGPT4RecipeSchema = z
  .strictObject({
    model: modelSchema
      .refine(({ trained, qformer }) => qformer || !trained.some((part) => part === "queries" || part === "qformer"), {
        path: ["trained"],
        error: "queries and qformer can only be trained where there is a model.qformer",
      })
      .refine(({ trained }) => trained.length === 1 || !trained.includes("contrastive_head"), {
        path: ["trained"],
        error: "contrastive_head is trained by itself, in a run after that of the other parts",
      }),
    datasets: datasetsSchema,
    run: captionRunSchema,
  })
  .refine(({ model, run }) => !(run.contrastive && trainsHead(model)), {
    path: ["run", "contrastive"],
    error: "is for runs that learn captions afterwards; where contrastive_head is trained, leave it out",
  });

export type MiniGPT4Recipe = z.infer<typeof miniGPT4RecipeSchema>;

/** Whether a recipe trains the contrastive head, and so nothing else. */
export function trainsHead({ trained }: { readonly trained: readonly string[] }): boolean {
  return trained.includes("contrastive_head");
}
