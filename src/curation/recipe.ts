/** Curation recipes: YAML files that configure all steps from choosing images to exporting the finished dataset. */
import { z } from "zod";
import { formatNames } from "../data/formats/open.ts";
import { devices } from "../runtime/environment.ts";
import { withCurrentQuantization } from "../tensor/quant/quantization.ts";
import { type RenamedKey, readRecipeFile } from "../training/recipe-file.ts";
import { promptStyles } from "./describe.ts";

const positive = z.number().int().positive();
const count = z.number().int().min(0);

const imagesSchema = z.strictObject({
  /** Any dataset; see `openDataset`. */
  path: z.string().min(1),
  /** @default detected from the path */
  format: z.enum(formatNames).optional(),
  /** Folder of the images, for formats that do not define it. */
  images: z.string().min(1).optional(),
  /** Number of images, chosen at random. */
  count: positive.default(5000),
  seed: count.max(2 ** 32 - 1).default(0),
});

const describeSchema = z.strictObject({
  /** The first stage's model: a name or a model folder. */
  model: z.string().min(1),
  device: z.enum(devices).default("auto"),
  /** @default set by the model folder */
  quantization: z.enum(["native", "float32", "int4"]).optional(),
  /** Block size for `quantization: int4`. @default that of the file */
  block_size: z.union([z.literal(32), z.literal(64), z.literal(128)]).optional(),
  /** @default paper for models with Vicuna's template, else describe */
  prompt: z.enum(promptStyles).optional(),
  /** How many times a short description is continued. */
  continues: count.max(10).optional(),
  /** Descriptions of at most this many tokens are continued. */
  short_answer: count.optional(),
  /** Images that are described concurrently. */
  parallel: positive.optional(),
  /** Attempts per image that cannot be read. */
  tries: positive.optional(),
  /** Decoding is greedy unless temperature, top_p or top_k is set. */
  temperature: z.number().min(0).max(10).optional(),
  top_p: z.number().min(0).max(1).optional(),
  top_k: positive.optional(),
  repetition_penalty: z.number().min(0.1).max(10).optional(),
  max_new_tokens: positive.max(1999).optional(),
  beams: positive.max(32).optional(),
  seed: count.max(2 ** 32 - 1).optional(),
});

const polishSchema = z.strictObject({
  /** URL of a service with OpenAI's chat API. @default the environment variable OPENAI_BASE_URL */
  base_url: z.url().optional(),
  /** @default the service's only model */
  model: z.string().min(1).optional(),
  /** The environment variable that holds the API key. Keys do not belong in recipes. */
  api_key_env: z.string().min(1).default("OPENAI_API_KEY"),
  /** Replaces the paper's prompt. */
  prompt_file: z.string().min(1).optional(),
  temperature: z.number().min(0).max(2).optional(),
  max_tokens: positive.optional(),
  parallel: positive.max(256).optional(),
  retries: count.max(100).optional(),
  /** Seconds. */
  timeout: z.number().positive().max(300).optional(),
  /** Maximum number of tokens that polishing may cost the project. */
  budget: positive.optional(),
});

const recipeSchema = z.strictObject({
  /** The project file. */
  project: z.string().min(1).default("curation.db"),
  images: imagesSchema,
  describe: z.preprocess(withCurrentQuantization, describeSchema),
  /** Leave out to keep texts as they were described. */
  polish: polishSchema.optional(),
  filter: z
    .strictObject({
      /** A file with changes to the bundled rules. */
      rules: z.string().min(1).optional(),
    })
    .prefault({}),
  /** Leave out to export nothing. */
  export: z
    .strictObject({
      folder: z.string().min(1),
      /** Also export pairs that no one has reviewed and no rule drops. */
      unreviewed: z.boolean().default(false),
      /** Replace an earlier export in the folder. */
      overwrite: z.boolean().default(false),
    })
    .optional(),
});

export type CurationRecipe = z.infer<typeof recipeSchema>;

const deprecatedKeys: readonly RenamedKey[] = [
  [["pictures"], ["images"]],
  [
    ["images", "layout"],
    ["images", "format"],
  ],
];

/**
 * Reads a recipe.
 *
 * @param settings `key.key=value` each; they override the file, and `null` removes a key
 * @returns the recipe, and one message for each deprecated key
 * @throws Error naming the file, the line and the key that is wrong
 */
export async function readCurationRecipe(
  path: string,
  settings: readonly string[] = [],
): Promise<{ readonly recipe: CurationRecipe; readonly deprecated: readonly string[] }> {
  const file = await readRecipeFile(path, settings, deprecatedKeys);
  return { recipe: file.check(recipeSchema), deprecated: file.deprecated };
}
