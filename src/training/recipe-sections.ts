/** The sections that all recipes have: data sets, and the run. */
import { z } from "zod";
import { layoutNames } from "../data/open-dataset.ts";

export const positive = z.number().int().positive();
export const count = z.number().int().min(0);
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
  layout: z.enum(layoutNames).optional(),
  /** Folder of the pictures, where the layout does not say. */
  images: z.string().optional(),
  /** Which samples of web shards are taken, by columns of the parquet files beside them. */
  filter: z.record(z.string(), conditionSchema).optional(),
  /** How often this data set is drawn from, relative to the others. */
  sample_ratio: z.number().positive().default(1),
  /** The last so many pictures, by name, are never trained on. */
  hold_out: count.default(0),
  /** So many pictures before those are watched during the run, and not trained on either. */
  validate: count.default(0),
  /** `blip_caption` cleans a text as the first stage does; `none` takes it as it is, which is what `cc_sbu_align` is for. */
  text_processor: z.enum(["blip_caption", "none"]).optional(),
  /** What is learned of a text: `{text}` stands for it, `{a text}` for it with its article. */
  answer: z.string().default("{text}"),
});

/** Data sets by name. */
export const datasetsSchema = z
  .record(z.string(), datasetSchema)
  .refine((sets) => Object.keys(sets).length > 0, "needs one data set or more");

export const runSchema = z.strictObject({
  init_lr: z.number().positive(),
  min_lr: z.number().min(0),
  warmup_lr: z.number().min(0).default(0),
  warmup_steps: count.default(0),
  weight_decay: z.number().min(0).default(0.05),
  max_epoch: positive,
  /** Steps of an epoch; left out, as many as show each picture once. */
  iters_per_epoch: positive.optional(),
  batch_size: positive,
  /** Batches whose gradients are added up before a step. */
  accum_grad_iters: positive.default(1),
  /** Longer gradients are shortened to this length; left out, they are taken as they are. */
  max_grad_norm: z.number().positive().optional(),
  /** Larger ones would run into the numbers of the steps; see `stepRandom`. */
  seed: count.max(1_000_000).default(42),
  /** Threads that decode pictures; by default as many as leave the engine a core. */
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
  /** Ways of looking at each picture (itself, mirrored, cropped), and the smallest side of a crop. */
  views: positive.default(1),
  crop_min_side: z.number().gt(0).max(1).default(1),
  /** Decay of the running average of the weights, which is what is saved; 0 saves the last step's. */
  average_decay: share.default(0),
  /** Steps between two checkpoints, and how many of them are kept. */
  save_every: positive.default(200),
  keep_last: positive.default(2),
  /** Steps between two measurements of the loss on the pictures that are watched; the best weights are kept. */
  validate_every: positive.default(50),
  output_dir: z.string().min(1),
});

/** What all recipes say, whatever they train. */
export interface RecipeBase {
  readonly datasets: z.infer<typeof datasetsSchema>;
  readonly run: z.infer<typeof runSchema>;
}
