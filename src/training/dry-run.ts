/** What a recipe would do: parts, data, and the time of real steps. It leaves nothing but features in the recipe's cache. */
import { rmdir, stat } from "node:fs/promises";
import { type Dataset, listPairs } from "../data/dataset.ts";
import type { SessionOptions } from "../runtime/session.ts";
import { sizeOf } from "../tensor/array.ts";
import type { WeightSource } from "../tensor/weight-source.ts";
import { BatchLoader } from "./batch-loader.ts";
import { openLayered } from "./layered-loss.ts";
import { type PreparedData, prepare, prepareQFormer, stageOf } from "./prepare.ts";
import { isPretraining, type MiniGPT4Recipe, type QFormerRecipe, type Recipe, trainsHead } from "./recipe.ts";
import { captionStage } from "./stages/caption-stage.ts";
import { contrastiveStage } from "./stages/contrastive-stage.ts";
import type { Stage } from "./stages/stage.ts";
import { answerTokens } from "./stages/texts.ts";
import { TrainingStep } from "./step.ts";
import { GradCacheRunner, optimizerOf, train, valuesOf } from "./trainer.ts";
import { initialState } from "./training-state.ts";
import { covers, type VisionParts } from "./vision-parts.ts";

/** Parts of a data set that are listed; the others are taken to be alike. */
const listedParts = 4;
/** Texts of a data set that are tokenised, and images whose size is looked up. */
const sampled = 500;
/** Real steps that are taken; the first one also warms up, and is not counted. */
const steps = 3;

interface DatasetPlan {
  readonly name: string;
  readonly layout: string;
  readonly path: string;
  /** Files that list pairs. */
  readonly parts: number;
  /** Whether images, texts and bytes are estimates from some of the parts. */
  readonly isEstimate: boolean;
  readonly images: number;
  readonly texts: number;
  readonly tokensPerText: number;
  /** Of the encoded images. */
  readonly bytes: number;
  readonly broken: number;
}

export interface DryRun {
  /** For each part of the model: whether it is trained, and the file its weights come from. */
  readonly parts: readonly { readonly name: string; readonly trained: boolean; readonly origin: string }[];
  readonly trainedParameters: number;
  readonly datasets: readonly DatasetPlan[];
  readonly watched: number;
  readonly steps: number;
  readonly imagesPerStep: number;
  /** Share of the places of a step that is padding. */
  readonly padding: number;
  /** Bytes that the features of all images take in the cache; undefined without one. */
  readonly cacheBytes: number | undefined;
  readonly cachedRows: number;
  readonly secondsPerStep: number;
  /** Of the whole run, validation and the contrastive stage left out. */
  readonly seconds: number;
}

/** What is measured of a run: its data, the stage whose steps are those of the run itself, and what else is loaded. */
interface Planned {
  readonly prepared: PreparedData & { readonly parts: VisionParts };
  readonly stage: Stage;
  /** The values that the trained weights begin with. */
  readonly source: WeightSource;
  readonly trained: readonly string[];
  /** Parts of the model beside those of an image's way. */
  readonly others: DryRun["parts"];
  tokensOf(text: string): number;
}

/** @throws Error like the run itself would */
export async function dryRun(recipe: Recipe, session: SessionOptions = {}): Promise<DryRun> {
  const planned = isPretraining(recipe) ? await planQFormer(recipe, session) : await planMiniGPT4(recipe, session);
  const { prepared, trained, others } = planned;
  try {
    const { parts, frozen, cache } = prepared;
    const { run } = recipe;
    const datasets: DatasetPlan[] = [];
    for (const [i, [name, { path }]] of Object.entries(recipe.datasets).entries()) {
      datasets.push({ name, path, ...(await look(prepared.datasets[i] as Dataset, i, planned)) });
    }
    const measured = await realSteps(planned, session);
    const { totalSteps: total } = prepared;
    const images = datasets.reduce((sum, dataset) => sum + dataset.images, 0);
    const rows = images * run.views + prepared.validation.length;
    return {
      parts: [
        ...Object.entries(parts.origins).map(([name, origin]) => ({
          name,
          trained: trained.some((one) => covers(one, name)),
          origin: origin ?? "new, random",
        })),
        ...others,
      ],
      trainedParameters: measured.parameters,
      datasets,
      watched: prepared.validation.length,
      steps: total,
      imagesPerStep: run.batch_size * run.accum_grad_iters,
      padding: measured.padding,
      cacheBytes: cache && rows * sizeOf(frozen.shape) * 2,
      cachedRows: cache?.size ?? 0,
      secondsPerStep: measured.seconds,
      seconds: measured.seconds * total,
    };
  } finally {
    await prepared.close();
  }
}

async function planMiniGPT4(recipe: MiniGPT4Recipe, session: SessionOptions): Promise<Planned> {
  const { model, run } = recipe;
  const isHead = trainsHead(model);
  const begun = await prepare(recipe, session);
  const { prompts, textsOf, datasets } = begun;
  const layered = isHead
    ? undefined
    : await openLayered(recipe, begun.parts, prompts, { session }).catch(async (error: Error) => {
        await begun.close();
        throw error;
      });
  const parts = { ...begun.parts, layered };
  const prepared = {
    ...begun,
    parts,
    async close() {
      await begun.close();
      if (!layered) return;
      await layered.close();
      // Where the layers lay; the folder of a run that was there has more in it.
      await rmdir(run.output_dir).catch(() => {});
    },
  };
  const { stage, source } = isHead
    ? await contrastiveStage(recipe, parts, textsOf, await Promise.all(datasets.map((dataset) => listPairs(dataset))))
    : { stage: captionStage(recipe, parts, parts.image, prompts, textsOf), source: parts.image };
  const endSym = prompts[0]?.endSym ?? "";
  return {
    prepared,
    stage,
    source,
    trained: model.trained,
    others: [
      ...(isHead ? [{ name: "contrastive", trained: true, origin: "new" }] : []),
      {
        name: "language model",
        trained: false,
        origin: `${parts.llm.checkpoint.path}${layered ? ", layer by layer" : ""}`,
      },
    ],
    tokensOf: (text) => answerTokens(text, endSym, model.max_txt_len, parts.llm.tokenizer).length,
  };
}

async function planQFormer(recipe: QFormerRecipe, session: SessionOptions): Promise<Planned> {
  const prepared = await prepareQFormer(recipe, session);
  const { parts } = prepared;
  const { model } = recipe;
  return {
    prepared,
    stage: stageOf(prepared),
    source: parts.image,
    trained: model.trained,
    others: [{ name: "text side", trained: true, origin: parts.bert ?? "new, random" }],
    tokensOf: (text) => parts.tokenizer.encode(text, model.max_txt_len).length,
  };
}

async function look(
  dataset: Dataset,
  index: number,
  { prepared: { textsOf }, tokensOf }: Planned,
): Promise<Omit<DatasetPlan, "name" | "path">> {
  const read = await Promise.all(dataset.parts.slice(0, listedParts).map((part) => part.read()));
  const pairs = read.flatMap((contents) => contents.pairs);
  const factor = dataset.parts.length / Math.max(1, read.length);
  const texts = pairs.reduce((sum, pair) => sum + textsOf({ pair, dataset: index }).length, 0);
  const some = pairs.slice(0, sampled);
  const lengths = some.flatMap((pair) => textsOf({ pair, dataset: index }).map(tokensOf));
  const sizes = await Promise.all(
    some.map(
      async ({ image: { path, range } }) =>
        range?.length ??
        (await stat(path).then(
          ({ size }) => size,
          () => 0,
        )),
    ),
  );
  return {
    layout: dataset.format,
    parts: dataset.parts.length,
    isEstimate: dataset.parts.length > read.length,
    images: Math.round(pairs.length * factor),
    texts: Math.round(texts * factor),
    tokensPerText: mean(lengths),
    bytes: Math.round(mean(sizes) * pairs.length * factor),
    broken: read.reduce((sum, { invalid }) => sum + invalid.length, 0),
  };
}

/** Takes steps whose result is thrown away. */
async function realSteps({ prepared, stage, source }: Planned, session: SessionOptions) {
  const { run } = prepared.recipe;
  const state = initialState(await valuesOf(source, stage.trained.keys()));
  const accumulates = run.accum_grad_iters > 1;
  const step = await TrainingStep.create(stage.graph, stage.loss, stage.trained, state, optimizerOf(prepared.recipe), {
    ...session,
    accumulates,
  });
  const exchanger = stage.exchange && accumulates ? await GradCacheRunner.create(stage.exchange, session) : undefined;
  const outside = await stage.openOutside?.(session);
  const batches = new BatchLoader(prepared.mixture(), prepared.loader, prepared.problems, {
    batchSize: run.batch_size * run.accum_grad_iters,
    views: { count: run.views, minSide: run.crop_min_side },
    seed: run.seed,
    firstStep: 0,
  });
  const times: number[] = [];
  let [tokens, places] = [0, 0];
  try {
    await train(step, {
      stage,
      ...(exchanger && { exchanger }),
      ...(outside && { outside }),
      frozen: prepared.frozen,
      batches,
      schedule: { initLr: 0, minLr: 0, warmupLr: 0, warmupSteps: 0, totalSteps: steps + 1 },
      batchSize: run.batch_size,
      seed: run.seed,
      onStep(report) {
        times.push(report.seconds);
        tokens += report.tokens;
        places += report.places;
      },
    });
  } finally {
    await batches.settle();
    await exchanger?.close();
    await outside?.close();
    await step.close();
  }
  return {
    seconds: mean(times.slice(1)),
    padding: 1 - tokens / places,
    parameters: Object.values(state.parameters).reduce((sum, { data }) => sum + data.length, 0),
  };
}

function mean(values: readonly number[]): number {
  return values.length === 0 ? 0 : values.reduce((sum, value) => sum + value, 0) / values.length;
}
