/** What a pre-training run has ready before its first step. */
import { type PreparedData, type PrepareOptions, prepareData } from "../prepared.ts";
import { representationStage } from "../stages/representation-stage.ts";
import type { Stage } from "../stages/stage.ts";
import { openQFormerParts, type QFormerParts } from "./parts.ts";
import type { QFormerRecipe } from "./recipe.ts";

export interface PreparedQFormer extends PreparedData {
  readonly recipe: QFormerRecipe;
  readonly parts: QFormerParts;
}

/** Opens everything that a recipe names. @throws Error naming what is missing or does not fit */
export async function prepareQFormer(recipe: QFormerRecipe, options: PrepareOptions = {}): Promise<PreparedQFormer> {
  const parts = await openQFormerParts(recipe);
  return { ...(await prepareData(recipe, parts, options)), recipe, parts };
}

/** The recipe's stage. @param isWatched for measuring: nothing is dropped out */
export function stageOf(
  { recipe: { model, run }, parts, textsOf }: PreparedQFormer,
  { isWatched = false } = {},
): Stage {
  const { config, frozen, image, isTrained, tokenizer } = parts;
  return representationStage({
    config,
    depth: frozen.depth,
    source: image,
    isTrained,
    losses: model.losses,
    tokenizer,
    textsOf,
    maxTextLength: model.max_txt_len,
    dropout: isWatched ? 0 : run.qformer_dropout,
    featureDropout: isWatched ? 0 : run.feature_dropout,
  });
}
