/**
 * Training from recipes, as `minigpt4 train` does it.
 *
 * @example
 * ```ts
 * import { readRecipe, runRecipe } from "minigpt4/training";
 *
 * const { recipe } = await readRecipe("stage2.yaml");
 * console.log(await runRecipe(recipe));
 * ```
 *
 * @module minigpt4/training
 */
export type { Description } from "./describer.ts";
export { type MiniGPT4Recipe, type QFormerRecipe, type ReadRecipe, type Recipe, readRecipe } from "./recipe.ts";
export { type RunOptions, runRecipe } from "./run.ts";
export type { StepReport } from "./trainer.ts";
