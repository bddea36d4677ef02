/** Training recipes: YAML with the original project's keys, checked when they are read. */
import { readFile } from "node:fs/promises";
import { LineCounter, parseDocument } from "yaml";
import { z } from "zod";
import { encoderSchema, qformerSchema } from "../models/model-folder.ts";
import { promptTemplates } from "../text/prompts.ts";

const positive = z.number().int().positive();
const share = z.number().min(0).lt(1);

const datasetSchema = z.strictObject({
  /** A folder as Flickr8k has it, or a CSV file; see `readPairs`. */
  path: z.string().min(1),
  /** How often this data set is drawn from, relative to the others. */
  sample_ratio: z.number().positive().default(1),
  /** The last so many pictures, by name, are never trained on. */
  hold_out: z.number().int().min(0).default(0),
  /** So many pictures before those are watched during the run, and not trained on either. */
  validate: z.number().int().min(0).default(0),
  /** What is learned of a text: `{text}` stands for it, `{a text}` for it with its article. */
  answer: z.string().default("{text}"),
});

const recipeSchema = z.strictObject({
  model: z.strictObject({
    arch: z.literal("minigpt4"),
    encoder: encoderSchema,
    /** Weights of the frozen encoder. */
    encoder_ckpt: z.string().min(1),
    qformer: qformerSchema,
    /** The frozen language model: a known name, a GGUF file or a folder. */
    llm: z.string().min(1),
    /** How a conversation is written for this language model. */
    prompt_template: z.enum(Object.keys(promptTemplates) as [string, ...string[]]),
    /** What stands before an answer. The first is how descriptions are asked for later. */
    prompts: z
      .array(
        z.strictObject({
          text: z.string().includes("<ImageHere>"),
          /** Ends every answer, and is learned with it. */
          end_sym: z.string().min(1),
          /** How often this prompt is drawn, relative to the others. */
          sample_ratio: z.number().positive().default(1),
        }),
      )
      .min(1),
    /** Longer answers, end included, are cut. */
    max_txt_len: positive,
  }),
  datasets: z
    .record(z.string(), datasetSchema)
    .refine((sets) => Object.keys(sets).length > 0, "needs one data set or more"),
  run: z.strictObject({
    init_lr: z.number().positive(),
    min_lr: z.number().min(0),
    warmup_lr: z.number().min(0),
    warmup_steps: z.number().int().min(0),
    weight_decay: z.number().min(0),
    max_epoch: positive,
    iters_per_epoch: positive,
    batch_size: positive,
    seed: z.number().int().min(0).default(42),
    /** Share of the features that are set to zero in training. */
    feature_dropout: share.default(0),
    /** Share of the Q-Former's activations that are set to zero in training. */
    qformer_dropout: share.default(0),
    /** Ways of looking at each picture (itself, mirrored, cropped), and the smallest side of a crop. */
    views: positive.default(1),
    crop_min_side: z.number().gt(0).max(1).default(1),
    /** Decay of the running average of the weights, which is what is saved; 0 saves the last step's. */
    average_decay: share.default(0),
    /** Different answers of one picture that are learned in one step. */
    answers_per_picture: positive.default(1),
    /** Image-text contrastive learning before the stage itself; left out, there is none. */
    contrastive: z
      .strictObject({
        steps: positive,
        batch_size: positive,
        init_lr: z.number().positive(),
        warmup_steps: z.number().int().min(0).default(0),
        /** A data set whose texts name the classes of the encoder's classifier, one picture a class: the classifier teaches too. */
        class_names: z.string().optional(),
      })
      .optional(),
    /** Steps between two measurements of the loss on the pictures that are watched; the best weights are kept. */
    validate_every: positive.default(50),
    output_dir: z.string().min(1),
  }),
});

export type Recipe = z.infer<typeof recipeSchema>;

/**
 * Reads a recipe.
 *
 * @param settings `key.key=value` each; they replace what the file says
 * @throws Error naming the file, the line and the key that is wrong
 */
export async function readRecipe(path: string, settings: readonly string[] = []): Promise<Recipe> {
  const text = await readFile(path, "utf8").catch((cause: Error) => {
    throw new Error(`The recipe ${path} cannot be read: ${cause.message}`, { cause });
  });
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines });
  const [broken] = document.errors;
  if (broken) throw new Error(`${path}: ${broken.message}`);
  for (const setting of settings) {
    const [, key, value] = /^([\w.]+)=(.*)$/s.exec(setting) ?? [];
    if (!key || value === undefined)
      throw new Error(`--set ${setting}: expected key.key=value, for example run.init_lr=3e-5`);
    document.setIn(key.split("."), parseDocument(value).toJS());
  }
  const { data, error } = recipeSchema.safeParse(document.toJS());
  if (data) return data;
  const problems = error.issues.map(({ path: keys, message }) => {
    const node = document.getIn(keys, true) as { range?: [number, number, number] } | undefined;
    const line = node?.range ? `:${lines.linePos(node.range[0]).line}` : "";
    return `${path}${line}: ${keys.join(".") || "the recipe"}: ${message}`;
  });
  throw new Error(problems.join("\n"));
}
