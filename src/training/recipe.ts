/** Training recipes: YAML with the original project's keys, checked when they are read. */
import { z } from "zod";
import { formatNames } from "../data/formats/open.ts";
import { encoderSchema, qformerSchema } from "../models/model-folder.ts";
import { promptTemplates } from "../tokenizers/prompts.ts";
import { readRecipeFile, translateOriginalKeys } from "./recipe-file.ts";
import { representationLosses } from "./stages/representation.ts";

// The sections that all recipes have: data sets, and the run.

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
  /** Where the data set lies; see `openDataset`. */
  path: z.string().min(1),
  format: z.enum(formatNames).optional(),
  /** Folder of the images, where the format does not say. */
  images: z.string().optional(),
  /** Which samples of web shards are taken, by columns of the parquet files beside them. */
  filter: z.record(z.string(), conditionSchema).optional(),
  /** How often this data set is drawn from, relative to the others. */
  sample_ratio: z.number().positive().default(1),
  /** The last so many images, by name, are never trained on. */
  hold_out: count.default(0),
  /** So many images before those are watched during the run, and not trained on either. */
  validate: count.default(0),
  /** `blip_caption` cleans a text as the first stage does; `none` takes it as it is, which is what `cc_sbu_align` is for. */
  text_processor: z.enum(["blip_caption", "none"]).optional(),
  /** What is learned of a text: `{text}` stands for it, `{a text}` for it with its article. */
  answer: z.string().default("{text}"),
});

/** Data sets by name. */
const datasetsSchema = z
  .record(z.string(), datasetSchema)
  .refine((sets) => Object.keys(sets).length > 0, "needs one data set or more");

const runSchema = z.strictObject({
  init_lr: z.number().positive(),
  min_lr: z.number().min(0),
  warmup_lr: z.number().min(0).default(0),
  warmup_steps: count.default(0),
  weight_decay: z.number().min(0).default(0.05),
  max_epoch: positive,
  /** Steps of an epoch; left out, as many as show each image once. */
  iters_per_epoch: positive.optional(),
  batch_size: positive,
  /** Batches whose gradients are added up before a step. */
  accum_grad_iters: positive.default(1),
  /** Longer gradients are shortened to this length; left out, they are taken as they are. */
  max_grad_norm: z.number().positive().optional(),
  /** Larger ones would run into the numbers of the steps; see `stepRandom`. */
  seed: count.max(1_000_000).default(42),
  /** Threads that decode images; by default as many as leave the engine a core. */
  num_workers: count.optional(),
  /** Pairs of a data set that are shuffled together, at least. */
  shuffle_buffer: positive.default(10_000),
  /** Where the features of the frozen part are kept: a folder, true for the user's cache, false to compute them each time. */
  feature_cache: z.union([z.boolean(), z.string().min(1)]).default(true),
  /** Share of broken samples that ends the run. */
  max_broken: share.default(0.05),
  /** Share of the features that are set to zero in training. */
  feature_dropout: share.default(0),
  /** Share of the Q-Former's activations that are set to zero in training. */
  qformer_dropout: share.default(0),
  /** Ways of looking at each image (itself, mirrored, cropped), and the smallest side of a crop. */
  views: positive.default(1),
  crop_min_side: z.number().gt(0).max(1).default(1),
  /** Decay of the running average of the weights, which is what is saved; 0 saves the last step's. */
  average_decay: share.default(0),
  /** Steps between two checkpoints, and how many of them are kept. */
  save_every: positive.default(200),
  keep_last: positive.default(2),
  /** Steps between two measurements of the loss on the images that are watched; the best weights are kept. */
  validate_every: positive.default(50),
  output_dir: z.string().min(1),
});

/** What all recipes say, whatever they train. */
export interface RecipeBase {
  readonly datasets: z.infer<typeof datasetsSchema>;
  readonly run: z.infer<typeof runSchema>;
}

// Recipes that train what lies between a frozen image encoder and a frozen language model.

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
  /** Different answers of one image that are learned in one step. */
  answers_per_image: positive.default(1),
  /** Image-text contrastive learning before the stage itself; left out, there is none. */
  contrastive: z
    .strictObject({
      steps: positive,
      batch_size: positive,
      init_lr: z.number().positive(),
      warmup_steps: count.default(0),
      /** A data set whose texts name the classes of the encoder's classifier, one image a class: the classifier teaches too. */
      class_names: z.string().optional(),
    })
    .optional(),
  /** Watched images that are described then. */
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

// Recipes that pre-train a Q-Former on images and texts alone: BLIP-2's first stage (arXiv 2301.12597, section 3.1).

const qformerArch = "blip2_qformer";

const modelSchemaRecipe = z
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
    /** Size of the space in which images and texts are compared. */
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

const qformerRecipeSchema = z.strictObject({
  model: modelSchemaRecipe,
  datasets: datasetsSchema,
  run: runSchema,
});

export type QFormerRecipe = z.infer<typeof qformerRecipeSchema>;

export type Recipe = MiniGPT4Recipe | QFormerRecipe;

/** Whether a recipe pre-trains a Q-Former without any language model. */
export function isPretraining(recipe: Recipe): recipe is QFormerRecipe {
  return recipe.model.arch === qformerArch;
}

export interface ReadRecipe {
  readonly recipe: Recipe;
  /** Keys of the original project that mean nothing here. */
  readonly ignored: readonly string[];
}

/**
 * Reads a recipe.
 *
 * @param settings `key.key=value` each; they replace what the file says, and `null` removes it
 * @throws Error naming the file, the line and the key that is wrong
 */
export async function readRecipe(path: string, settings: readonly string[] = []): Promise<ReadRecipe> {
  const file = await readRecipeFile(path, settings);
  let ignored: string[];
  try {
    ignored = translateOriginalKeys(file.document);
  } catch (cause) {
    throw new Error(`${path}: ${(cause as Error).message}`, { cause });
  }
  const isPretrained = file.document.getIn(["model", "arch"]) === qformerArch;
  return { recipe: isPretrained ? file.check(qformerRecipeSchema) : file.check(miniGPT4RecipeSchema), ignored };
}

/** Reads a recipe that trains a MiniGPT-4. @throws Error as `readRecipe`, and if it trains something else */
export async function readMiniGPT4Recipe(path: string, settings: readonly string[] = []): Promise<MiniGPT4Recipe> {
  const { recipe } = await readRecipe(path, settings);
  if (isPretraining(recipe)) throw new Error(`${path} pre-trains a Q-Former; expected a recipe with arch: minigpt4`);
  return recipe;
}
