/** A run of a recipe, from its first step or a checkpoint to the folder of what was trained. */
import { mkdir, readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { Checkpoints, type RunState } from "./checkpoints.ts";
import { layersFolder } from "./layered/open-layered.ts";
import { miniGPT4Stages, trainMiniGPT4 } from "./minigpt4-run.ts";
import { qformerStages, trainQFormer } from "./pretraining/run.ts";
import { isPretraining, type Recipe } from "./recipe.ts";
import { type RunOptions, sessionOf } from "./run-options.ts";

/** Runs a recipe. @returns the folder of what was trained: a MiniGPT-4 that `MiniGPT4.load` takes, or a Q-Former */
export async function runRecipe(recipe: Recipe, options: RunOptions = {}): Promise<string> {
  const { run } = recipe;
  const stages = isPretraining(recipe) ? qformerStages : miniGPT4Stages;
  const checkpoints = new Checkpoints(run.output_dir, stages, run.keep_last);
  const begun = { checkpoints, options, resumed: await begin(run.output_dir, checkpoints, options) };
  const prepareOptions = {
    ...sessionOf(options),
    problemsPath: join(run.output_dir, "broken.jsonl"),
    ...(options.onMessage && { onMessage: options.onMessage }),
  };
  if (isPretraining(recipe)) await trainQFormer(recipe, prepareOptions, begun);
  else await trainMiniGPT4(recipe, prepareOptions, begun);
  return run.output_dir;
}

/** Looks what the output folder holds. @returns the state to go on from */
async function begin(
  folder: string,
  checkpoints: Checkpoints,
  { resume, overwrite, onMessage }: RunOptions,
): Promise<RunState | undefined> {
  await removeLeftovers(folder);
  if (resume) return checkpoints.latest(onMessage);
  if (!(await checkpoints.isEmpty())) {
    if (!overwrite) {
      throw new Error(
        `${folder} holds a run already: go on with --resume, begin anew with --overwrite, or give another run.output_dir`,
      );
    }
    await checkpoints.clear();
  }
  await mkdir(folder, { recursive: true });
  await rm(join(folder, "broken.jsonl"), { force: true });
  return undefined;
}

/** Removes what a killed process left: as large as checkpoints and layers are, they would fill the disk one day. */
async function removeLeftovers(folder: string): Promise<void> {
  await rm(join(folder, layersFolder), { recursive: true, force: true });
  for (const place of [folder, join(folder, "checkpoints")]) {
    const names = await readdir(place).catch(() => []);
    const left = names.filter((name) => /\.(safetensors|json|jsonl)(\.[\w-]+)?\.partial$/.test(name));
    for (const name of left) await rm(join(place, name), { force: true });
  }
}
