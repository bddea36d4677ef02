/** Training recipes: YAML with the keys of the original project, validated when they are read. */
import { z } from "zod";
import { formatNames } from "../data/formats/open.ts";
import { encoderSchema, qformerSchema } from "../models/model-folder.ts";
import { promptTemplates } from "../tokenizers/prompts.ts";
import { type RenamedKey, readRecipeFile, translateOriginalKeys } from "./recipe-file.ts";
import { representationLosses } from "./stages/representation.ts";

const positive = z.number().int().positive();
const count = z.number().int().min(0);
const share = z.number().min(0).lt(1);

/** A condition on a column of img2dataset's parquet files. */
const conditionSchema = z.strictObject({
  min: z.number().optional(),
  max: z.number().optional(),
  equals: z.union([z.string(), z.number(), z.boolean()]).optional(),
});

const datasetSchema = z.strictObject({
  /** File or folder of the dataset; see `openDataset`. */
  path: z.string().min(1),
  /** @default detected from the path */
  format: z.enum(formatNames).optional(),
  /** Folder of the images, for formats that do not define it. */
  images: z.string().optional(),
  /** Filters the samples of web shards by columns of their parquet files. */
  filter: z.record(z.string(), conditionSchema).optional(),
  /** How often this dataset is drawn from, relative to the others. */
  sample_ratio: z.number().positive().default(1),
  /** The last N images by name are held out as a test set, and never trained on. */
  hold_out: count.default(0),
  /** The N images before those are the validation set, which is not trained on either. */
  validation: count.default(0),
  /** `blip_caption` cleans texts as the first stage does; `none`, the default of `cc_sbu_align`, keeps them unchanged. */
  text_processor: z.enum(["blip_caption", "none"]).optional(),
  /** Template of the target: `{text}` is the text, `{a text}` the text with its article. */
  answer: z.string().default("{text}"),
});

/** Datasets by name. */
const datasetsSchema = z
  .record(z.string(), datasetSchema)
  .refine((sets) => Object.keys(sets).length > 0, "needs at least one dataset");

const runSchema = z.strictObject({
  init_lr: z.number().positive(),
  min_lr: z.number().min(0),
  warmup_lr: z.number().min(0).default(0),
  warmup_steps: count.default(0),
  weight_decay: z.number().min(0).default(0.05),
  max_epoch: positive,
  /** Steps of an epoch. @default as many as show each image once */
  iters_per_epoch: positive.optional(),
  batch_size: positive,
  /** Micro-batches of a step, whose gradients add up. */
  accum_grad_iters: positive.default(1),
  /** Clips the global norm of the gradient. @default no clipping */
  max_grad_norm: z.number().positive().optional(),
  /** The bound keeps seeds apart from step numbers; see `stepRandom`. */
  seed: count.max(1_000_000).default(42),
  /** Threads that decode images. @default all cores but one */
  num_workers: count.optional(),
  /** Size of the shuffle buffer of each dataset in pairs. */
  shuffle_buffer: positive.default(10_000),
  /** Cache of the frozen part's features: a folder, true for the user's cache folder, false for none. */
  feature_cache: z.union([z.boolean(), z.string().min(1)]).default(true),
  /** The run fails if more than this share of the samples is broken. */
  max_broken: share.default(0.05),
  /** Dropout rate of the features. */
  feature_dropout: share.default(0),
  /** Dropout rate inside the Q-Former. */
  qformer_dropout: share.default(0),
  /** Augmented views of each image (unchanged, flipped, cropped), and the smallest side of a crop, relative to the image. */
  views: positive.default(1),
  crop_min_side: z.number().gt(0).max(1).default(1),
  /** Decay of the exponential moving average of the weights, which is what is saved. 0 disables it. */
  ema_decay: share.default(0),
  /** Steps between two checkpoints, and how many checkpoints are kept. */
  save_every: positive.default(200),
  keep_last: positive.default(2),
  /** Steps between two validations. The weights with the smallest validation loss are saved. */
  validate_every: positive.default(50),
  output_dir: z.string().min(1),
});

/** The sections of every recipe, whatever it trains. */
export interface RecipeBase {
  readonly datasets: z.infer<typeof datasetsSchema>;
  readonly run: z.infer<typeof runSchema>;
}

const promptSchema = z.strictObject({
  text: z.string().includes("<ImageHere>"),
  /** End of every answer, which is a target too. @default the model's `end_sym` */
  end_sym: z.string().min(1).optional(),
  /** How often this prompt is drawn, relative to the others. */
  sample_ratio: z.number().positive().default(1),
});

const modelSchema = z.strictObject({
  arch: z.literal("minigpt4"),
  encoder: encoderSchema,
  /** Weights of the frozen encoder. */
  encoder_ckpt: z.string().min(1),
  /** Without it, neighbouring patches are concatenated, as in the Llama 2 release. */
  qformer: qformerSchema.optional(),
  /** Initial weights of the Q-Former. @default random */
  qformer_ckpt: z.string().min(1).optional(),
  /** The result of an earlier stage: a `.pth` or safetensors file, or a run's folder. */
  ckpt: z.string().min(1).optional(),
  /**
   * The parts to train; the rest is frozen. The contrastive head is trained alone, on the image tokens of a finished
   * model, with the steps and learning rates of `run`.
   */
  trained: z
    .array(z.enum(["projection", "queries", "qformer", "ln_vision", "contrastive_head"]))
    .min(1)
    .default(["projection"]),
  /** The frozen language model: a name that can be pulled, a GGUF file or a folder. */
  llm: z.string().min(1),
  /** Quantization of the frozen parts' matrix products; `int8Choice` of each network names those that int8 applies to. */
  encoder_quantization: z.enum(["float32", "int8"]).default("float32"),
  llm_quantization: z.enum(["float32", "int8"]).default("float32"),
  /** Chat template of the language model. */
  conversation: z.enum(Object.keys(promptTemplates) as [string, ...string[]]).default("vicuna-v0"),
  /** Prompts before the answer. The first is the prompt of `describe` and of validation. */
  prompts: z.array(promptSchema).min(1).optional(),
  /** A file with one prompt a line; lines without `<ImageHere>` are ignored. */
  prompt_path: z.string().min(1).optional(),
  /** Template of each prompt, which replaces `{}`. */
  prompt_template: z.string().includes("{}").default("{}"),
  /** End of every answer, which is a target too. */
  end_sym: z.string().min(1).default("\n"),
  /** Longer answers, end included, are truncated. */
  max_txt_len: positive.default(32),
});

const captionRunSchema = z.strictObject({
  ...runSchema.shape,
  /**
   * Layer offload: one layer of the language model at a time is in memory, and its activations are computed again in the
   * backward pass.
   * @default only where the language model would take more than half of the memory
   */
  gradient_checkpointing: z.boolean().optional(),
  /** Answers of one image in a step. */
  answers_per_image: positive.default(1),
  /** A stage of image-text contrastive learning before the captions. @default none */
  contrastive: z
    .strictObject({
      steps: positive,
      batch_size: positive,
      init_lr: z.number().positive(),
      warmup_steps: count.default(0),
      /** A dataset whose texts name the classes of the encoder's classifier, one image a class: distils the classifier. */
      class_names: z.string().optional(),
    })
    .optional(),
  /** Validation images to describe after each validation. */
  describe: count.default(0),
});

const miniGPT4RecipeSchema = z
  .strictObject({
    model: modelSchema
      .refine(({ trained, qformer }) => qformer || !trained.some((part) => part === "queries" || part === "qformer"), {
        path: ["trained"],
        error: "queries and qformer can only be trained where there is a model.qformer",
      })
      .refine(({ trained }) => trained.length === 1 || !trained.includes("contrastive_head"), {
        path: ["trained"],
        error: "contrastive_head is trained alone, in a run after that of the other parts",
      }),
    datasets: datasetsSchema,
    run: captionRunSchema,
  })
  .refine(({ model, run }) => !(run.contrastive && trainsHead(model)), {
    path: ["run", "contrastive"],
    error: "is a stage before the captions. Remove it where contrastive_head is trained",
  });

export type MiniGPT4Recipe = z.infer<typeof miniGPT4RecipeSchema>;

/** Whether a recipe trains the contrastive head and nothing else. */
export function trainsHead({ trained }: { readonly trained: readonly string[] }): boolean {
  return trained.includes("contrastive_head");
}

/** Pre-trains a Q-Former without a language model: BLIP-2's first stage (arXiv 2301.12597, section 3.1). */
const qformerArch = "blip2_qformer";

const qformerModelSchema = z
  .strictObject({
    arch: z.literal(qformerArch),
    encoder: encoderSchema,
    /** Weights of the frozen encoder. */
    encoder_ckpt: z.string().min(1),
    qformer: qformerSchema,
    /** Initial weights: an earlier run's folder, or a weight file such as the released first-stage checkpoint. */
    qformer_ckpt: z.string().min(1).optional(),
    /** A BERT to initialise the text side and the queries' feed-forward layers from. @default random */
    bert_ckpt: z.string().min(1).optional(),
    /** `vocab.txt`, `tokenizer.json`, or the folder of one. @default that of `bert_ckpt` */
    tokenizer: z.string().min(1).optional(),
    /** Rows of the position table, at least `max_txt_len`. */
    max_position_embeddings: positive.default(512),
    /** Size of the joint embedding of images and texts. */
    embed_dim: positive.default(256),
    /** Image-text contrastive learning, image-text matching, image-grounded text generation. */
    losses: z
      .array(z.enum(representationLosses))
      .min(1)
      .default([...representationLosses]),
    /** The parts to train besides the heads; `ln_vision` is the norm between encoder and Q-Former. */
    trained: z
      .array(z.enum(["qformer", "ln_vision"]))
      .min(1)
      .default(["qformer", "ln_vision"]),
    encoder_quantization: z.enum(["float32", "int8"]).default("float32"),
    /** Longer texts, [CLS] and [SEP] included, are truncated. */
    max_txt_len: positive.default(32),
  })
  .refine(({ tokenizer, bert_ckpt: bert }) => tokenizer !== undefined || bert !== undefined, {
    path: ["tokenizer"],
    error: "is missing. Set it to a BERT's vocab.txt or tokenizer.json, or set model.bert_ckpt to a folder with one",
  })
  .refine((model) => model.max_txt_len <= model.max_position_embeddings, {
    path: ["max_txt_len"],
    error: "exceeds max_position_embeddings",
  });

const qformerRecipeSchema = z.strictObject({
  model: qformerModelSchema,
  datasets: datasetsSchema,
  run: runSchema,
});

export type QFormerRecipe = z.infer<typeof qformerRecipeSchema>;

export type Recipe = MiniGPT4Recipe | QFormerRecipe;

/** Whether a recipe pre-trains a Q-Former without a language model. */
export function isPretraining(recipe: Recipe): recipe is QFormerRecipe {
  return recipe.model.arch === qformerArch;
}

export interface ReadRecipe {
  readonly recipe: Recipe;
  /** Keys of the original project without an effect here. */
  readonly ignored: readonly string[];
  /** A message for each deprecated key. */
  readonly deprecated: readonly string[];
}

/** Old names of keys, which are still read. */
const deprecatedKeys: readonly RenamedKey[] = [
  [
    ["datasets", "*", "layout"],
    ["datasets", "*", "format"],
  ],
  [
    ["datasets", "*", "validate"],
    ["datasets", "*", "validation"],
  ],
  [
    ["model", "encoder_precision"],
    ["model", "encoder_quantization"],
  ],
  [
    ["model", "llm_precision"],
    ["model", "llm_quantization"],
  ],
  [
    ["run", "average_decay"],
    ["run", "ema_decay"],
  ],
  [
    ["run", "answers_per_picture"],
    ["run", "answers_per_image"],
  ],
];

/**
 * Reads a recipe.
 *
 * @param settings `key.key=value` each; they replace values of the file, and `null` removes one
 * @throws Error naming the file, the line and the key that is wrong
 *
 * @example
 * ```ts
 * import { readRecipe } from "minigpt4/training";
 *
 * const { recipe, ignored } = await readRecipe("stage2.yaml", ["run.batch_size_train=4"]);
 * console.log(recipe.run.output_dir, ignored);
 * ```
 */
export async function readRecipe(path: string, settings: readonly string[] = []): Promise<ReadRecipe> {
  const file = await readRecipeFile(path, settings, deprecatedKeys);
  let ignored: string[];
  try {
    ignored = translateOriginalKeys(file.document);
  } catch (cause) {
    throw new Error(`${path}: ${(cause as Error).message}`, { cause });
  }
  const isPretrained = file.document.getIn(["model", "arch"]) === qformerArch;
  const recipe = isPretrained ? file.check(qformerRecipeSchema) : file.check(miniGPT4RecipeSchema);
  return { recipe, ignored, deprecated: file.deprecated };
}

/** Reads a recipe that trains a MiniGPT-4. @throws Error as `readRecipe`, and if it trains something else */
export async function readMiniGPT4Recipe(path: string, settings: readonly string[] = []): Promise<MiniGPT4Recipe> {
  const { recipe } = await readRecipe(path, settings);
  if (isPretraining(recipe)) throw new Error(`${path} pre-trains a Q-Former; expected a recipe with arch: minigpt4`);
  return recipe;
}
