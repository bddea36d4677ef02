/** Fills the feature cache of a recipe ahead of a run. */
import { basename } from "node:path";
import { type ImageTextPair, listPairs } from "../data/dataset.ts";
import { createViews, originalView, type View } from "../data/decoder.ts";
import { Prefetcher } from "../data/sampling.ts";
import type { SessionOptions } from "../runtime/session.ts";
import { loadOrReport } from "./batch-loader.ts";
import { openParts, openQFormerParts } from "./parts.ts";
import { isPretraining, type Recipe } from "./recipe.ts";
import { TrainingData } from "./training-data.ts";

/** Images that are encoded together. */
const batchSize = 16;

export interface EncodeOptions extends Pick<SessionOptions, "device" | "threads"> {
  readonly onMessage?: (message: string) => void;
  /** Views that are in the cache, and all. */
  readonly onProgress?: (done: number, total: number) => void;
  readonly signal?: AbortSignal;
}

export interface EncodeReport {
  /** Images times views. */
  readonly total: number;
  /** Views that were not in the cache before. */
  readonly computed: number;
  readonly broken: number;
}

/**
 * Computes the features that the cache lacks. They are kept if the signal aborts.
 * @throws Error if the recipe has no cache
 */
export async function encodeRecipe(
  recipe: Recipe,
  { onProgress, onMessage, signal, device, threads }: EncodeOptions = {},
): Promise<EncodeReport> {
  await using parts = isPretraining(recipe) ? await openQFormerParts(recipe) : await openParts(recipe);
  await using data = await TrainingData.open(recipe, parts, { session: { device, threads }, onMessage });
  const { cache, loader, frozen, problems } = data;
  if (!cache) throw new Error("This recipe has no feature cache: run.feature_cache is false");
  const before = cache.size;
  const { run } = recipe;
  const views: { readonly pair: ImageTextPair; readonly view: View }[] = data.validation.map(({ pair }) => ({
    pair,
    view: originalView,
  }));
  for (const dataset of data.datasets) {
    for (const pair of await listPairs(dataset)) {
      const own = createViews(basename(pair.name), { count: run.views, minSide: run.crop_min_side });
      views.push(...own.map((view) => ({ pair, view })));
    }
  }
  let next = 0;
  const batches = new Prefetcher(
    async () => {
      next += batchSize;
      return views.slice(next - batchSize, next);
    },
    (batch) => Promise.all(batch.map(({ pair, view }) => loadOrReport(loader, pair, view, problems))),
    2,
  );
  for (let done = 0; done < views.length && !signal?.aborted; done += batchSize) {
    await frozen.compute((await batches.next()).filter((image) => image !== undefined));
    problems.check(done + batchSize);
    onProgress?.(Math.min(done + batchSize, views.length), views.length);
  }
  await batches.settle();
  return { total: views.length, computed: cache.size - before, broken: problems.count };
}
