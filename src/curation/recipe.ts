/** Curation recipes: what is done with which images, by whom, from their descriptions to the finished data set. */
import { z } from "zod";
import { formatNames } from "../data/formats/open.ts";
import { devices } from "../runtime/environment.ts";
import { withCurrentQuantization } from "../tensor/quant/quantization.ts";
import { readRecipeFile } from "../training/recipe-file.ts";
import { askings } from "./describe.ts";

const positive = z.number().int().positive();
const count = z.number().int().min(0);

const imagesSchema = z.strictObject({
  /** Any data set; see `openDataset`. */
  path: z.string().min(1),
  format: z.enum(formatNames).optional(),
  /** Folder of the images, where the format does not say. */
  images: z.string().min(1).optional(),
  /** So many, chosen at random. */
  count: positive.default(5000),
  seed: count.max(2 ** 32 - 1).default(0),
});

const describeSchema = z.strictObject({
  /** The first stage's model: a name or a model folder. */
  model: z.string().min(1),
  device: z.enum(devices).default("auto"),
  /** Left out, the model folder says it. */
  quantization: z.enum(["native", "float32", "int4"]).optional(),
  /** Elements of a block, with `quantization: int4`: everything is rounded to such blocks. Left out, the blocks of the file are used. */
  block_size: z.union([z.literal(32), z.literal(64), z.literal(128)]).optional(),
  /** Left out, it follows the model's form of conversation. */
  prompt: z.enum(askings).optional(),
  continues: count.max(10).optional(),
  /** Descriptions of so many tokens or fewer are gone on with. */
  short_answer: count.optional(),
  /** Images at a time. */
  parallel: positive.optional(),
  /** So often an image is tried that cannot be read. */
  tries: positive.optional(),
  /** Without the first three, always the likeliest token is taken. */
  temperature: z.number().min(0).max(10).optional(),
  top_p: z.number().min(0).max(1).optional(),
  top_k: positive.optional(),
  repetition_penalty: z.number().min(0.1).max(10).optional(),
  max_new_tokens: positive.max(1999).optional(),
  beams: positive.max(32).optional(),
  seed: count.max(2 ** 32 - 1).optional(),
});

const polishSchema = z.strictObject({
  /** Of a service with OpenAI's chat API; left out, the environment says it. */
  base_url: z.url().optional(),
  /** Left out, the one that the service has. */
  model: z.string().min(1).optional(),
  /** The environment variable that holds the key. A key itself has no place in a recipe. */
  api_key_env: z.string().min(1).default("OPENAI_API_KEY"),
  /** Instead of the paper's prompt. */
  prompt_file: z.string().min(1).optional(),
  temperature: z.number().min(0).max(2).optional(),
  max_tokens: positive.optional(),
  parallel: positive.max(256).optional(),
  retries: count.max(100).optional(),
  /** Seconds. */
  timeout: z.number().positive().max(300).optional(),
  /** Most tokens that polishing may cost the project. */
  budget: positive.optional(),
});

const recipeSchema = z.strictObject({
  /** The project's file. */
  project: z.string().min(1).default("curation.db"),
  images: imagesSchema,
  describe: z.preprocess(withCurrentQuantization, describeSchema),
  /** Left out, texts stay as they were described. */
  polish: polishSchema.optional(),
  filter: z
    .strictObject({
      /** What is to be otherwise than in the rules that come with the package. */
      rules: z.string().min(1).optional(),
    })
    .prefault({}),
  /** Left out, nothing is exported. */
  export: z
    .strictObject({
      folder: z.string().min(1),
      /** Also pairs that nobody has reviewed and no rule drops. */
      unreviewed: z.boolean().default(false),
      /** Whether an earlier export in the folder is replaced. */
      overwrite: z.boolean().default(false),
    })
    .optional(),
});

export type CurationRecipe = z.infer<typeof recipeSchema>;

/**
 * Reads a recipe.
 *
 * @param settings `key.key=value` each; they replace what the file says, and `null` removes it
 * @throws Error naming the file, the line and the key that is wrong
 */
export async function readCurationRecipe(path: string, settings: readonly string[] = []): Promise<CurationRecipe> {
  return (await readRecipeFile(path, settings)).check(recipeSchema);
}
