/** A run that pre-trains a Q-Former on pictures and texts. */
import type { PrepareOptions } from "../prepared.ts";
import { type Begun, openMetrics, sessionOf, stageRunOf, stepsOf } from "../run-options.ts";
import { runStage } from "../stage-run.ts";
import { prepareQFormer, stageOf } from "./prepared.ts";
import type { QFormerRecipe } from "./recipe.ts";
import { saveQFormerFolder } from "./save.ts";
import { QFormerValidation } from "./validation.ts";

export const qformerStages = ["representation"] as const;

/** Runs a recipe to its folder. */
export async function trainQFormer(
  recipe: QFormerRecipe,
  prepareOptions: PrepareOptions,
  { checkpoints, resumed, options }: Begun,
): Promise<void> {
  const prepared = await prepareQFormer(recipe, prepareOptions);
  try {
    const stage = stageOf(prepared);
    const metrics = await openMetrics(recipe, undefined, resumed);
    const validation =
      prepared.validation.length > 0 ? await QFormerValidation.create(prepared, sessionOf(options)) : undefined;
    try {
      const weights = await runStage(
        prepared,
        stage,
        prepared.parts.image,
        {
          ...stageRunOf(prepared, checkpoints, metrics, options),
          ...stepsOf(prepared),
          ...(validation && { watch: { validation, every: recipe.run.validate_every } }),
        },
        resumed,
      );
      options.signal?.throwIfAborted();
      await saveQFormerFolder(recipe, prepared.parts, weights);
    } finally {
      await metrics.close();
      await validation?.release();
    }
  } finally {
    await prepared.close();
  }
}
