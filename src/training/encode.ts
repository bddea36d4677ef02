/** Fills the feature cache of a recipe before it is run. */
import { basename } from "node:path";
import { type ImageTextPair, listPairs } from "../data/dataset.ts";
import { createViews, originalView, type View } from "../data/decoder.ts";
import { Prefetcher } from "../data/sampling.ts";
import type { SessionOptions } from "../runtime/session.ts";
import { loadOrReport } from "./batch-loader.ts";
import { type PrepareOptions, prepare, prepareQFormer } from "./prepare.ts";
import { isPretraining, type Recipe } from "./recipe.ts";

/** Images that are encoded side by side. */
const batch = 16;

export interface EncodeOptions extends SessionOptions, Pick<PrepareOptions, "onMessage"> {
  /** Views that are in the cache, of all. */
  readonly onProgress?: (done: number, total: number) => void;
  readonly signal?: AbortSignal;
}

export interface EncodeReport {
  /** Images times views. */
  readonly total: number;
  /** Those that were not in the cache before. */
  readonly computed: number;
  readonly broken: number;
}

/**
 * Computes what the cache lacks. What is done when the signal comes stays.
 * @throws Error if the recipe has no cache
 */
export async function encodeRecipe(
  recipe: Recipe,
  { onProgress, signal, ...options }: EncodeOptions = {},
): Promise<EncodeReport> {
  const prepared = isPretraining(recipe) ? await prepareQFormer(recipe, options) : await prepare(recipe, options);
  try {
    const { cache, datasets, validation, loader, frozen, problems } = prepared;
    if (!cache) throw new Error("This recipe keeps no features: its run.feature_cache is false");
    const before = cache.size;
    const { run } = recipe;
    const wanted: { readonly pair: ImageTextPair; readonly view: View }[] = validation.map(({ pair }) => ({
      pair,
      view: originalView,
    }));
    for (const dataset of datasets) {
      for (const pair of await listPairs(dataset)) {
        const views = createViews(basename(pair.name), { count: run.views, minSide: run.crop_min_side });
        wanted.push(...views.map((view) => ({ pair, view })));
      }
    }
    let next = 0;
    const batches = new Prefetcher(
      async () => {
        next += batch;
        return wanted.slice(next - batch, next);
      },
      (part) => Promise.all(part.map(({ pair, view }) => loadOrReport(loader, pair, view, problems))),
      2,
    );
    for (let done = 0; done < wanted.length && !signal?.aborted; done += batch) {
      await frozen.compute((await batches.next()).filter((image) => image !== undefined));
      problems.check(done + batch);
      onProgress?.(Math.min(done + batch, wanted.length), wanted.length);
    }
    await batches.settle();
    return { total: wanted.length, computed: cache.size - before, broken: problems.count };
  } finally {
    await prepared.close();
  }
}
