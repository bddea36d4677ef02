/** Training recipes: YAML with the original project's keys, checked when they are read. */
import { type MiniGPT4Recipe, miniGPT4RecipeSchema } from "./minigpt4-recipe.ts";
import { translateOriginalKeys } from "./original-keys.ts";
import { type QFormerRecipe, qformerArch, qformerRecipeSchema } from "./pretraining/recipe.ts";
import { readRecipeFile } from "./recipe-file.ts";

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
