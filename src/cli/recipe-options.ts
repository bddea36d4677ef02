/** What commands that take a recipe have in common. */
import { Option } from "commander";
import { type Recipe, readRecipe } from "../training/recipe.ts";

/** `--set`, which every command that takes a recipe has. */
export function settingsOption(): Option {
  return new Option("--set <key=value>", "replace a value of the recipe; can be given several times")
    .argParser((value: string, before: readonly string[]) => [...before, value])
    .default([]);
}

/** A recipe with its settings; says on standard error which keys were left aside. */
export async function openRecipe(path: string, settings: readonly string[]): Promise<Recipe> {
  const { recipe, ignored } = await readRecipe(path, settings);
  if (ignored.length > 0) process.stderr.write(`Left aside, without meaning here: ${ignored.join(", ")}\n`);
  return recipe;
}
