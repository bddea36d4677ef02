/** A dry run: what a recipe would train and on what data, and the time of a few real steps. It writes only to the feature cache. */
import { rmdir, stat } from "node:fs/promises";
import { type Dataset, type ImageTextPair, listPairs } from "../data/dataset.ts";
import type { SessionOptions } from "../runtime/session.ts";
import { sizeOf } from "../tensor/array.ts";
import type { WeightSource } from "../tensor/weight-source.ts";
import { openOffloaded } from "./layer-offload.ts";
import { type ModelParts, openParts, openQFormerParts, type QFormerParts } from "./parts.ts";
import { isPretraining, type MiniGPT4Recipe, type QFormerRecipe, type Recipe, trainsHead } from "./recipe.ts";
import { captionStage } from "./stages/caption-stage.ts";
import { contrastiveStage } from "./stages/contrastive-stage.ts";
import { qformerStage } from "./stages/representation-stage.ts";
import type { Stage } from "./stages/stage.ts";
import { answerTokens, readPrompts } from "./stages/texts.ts";
import { readSettings, Trainer } from "./trainer.ts";
import { TrainingData } from "./training-data.ts";
import { covers, type VisionParts } from "./vision-parts.ts";

/** Files of a dataset that are listed; the rest is estimated from them. */
const listedFiles = 4;
/** Texts of a dataset that are tokenized, and images whose size is looked up. */
const sampledPairs = 500;
/** Steps that are measured, after one for warm-up. */
const measuredSteps = 3;

interface DatasetPlan {
  readonly name: string;
  readonly format: string;
  readonly path: string;
  /** Files that list pairs. */
  readonly parts: number;
  /** Whether images, texts and bytes are estimates from some of the files. */
  readonly isEstimate: boolean;
  readonly images: number;
  readonly texts: number;
  readonly tokensPerText: number;
  /** Size of the encoded images. */
  readonly bytes: number;
  readonly broken: number;
}

export interface DryRun {
  /** The parts of the model, and the file that each one's weights come from. */
  readonly parts: readonly { readonly name: string; readonly trained: boolean; readonly origin: string }[];
  readonly trainedParameters: number;
  readonly datasets: readonly DatasetPlan[];
  /** Images of the validation set. */
  readonly validation: number;
  readonly steps: number;
  readonly imagesPerStep: number;
  /** Share of a step's tokens that is padding. */
  readonly padding: number;
  /** Size of the features of all images in bytes; undefined without a cache. */
  readonly cacheBytes: number | undefined;
  readonly cachedRows: number;
  readonly secondsPerStep: number;
  /** Duration of the run without validation and the contrastive stage. */
  readonly seconds: number;
}

/** The stage that is measured, and the parts of the model besides the vision tower. */
interface MeasuredStage {
  readonly stage: Stage;
  /** Initial values of the trained weights. */
  readonly source: WeightSource;
  readonly otherParts: DryRun["parts"];
  countTokens(text: string): number;
}

/** @throws Error as a run of the recipe would */
export async function dryRun(recipe: Recipe, session: SessionOptions = {}): Promise<DryRun> {
  if (isPretraining(recipe)) {
    await using parts = await openQFormerParts(recipe);
    await using data = await TrainingData.open(recipe, parts, { session });
    return await measure(recipe, { parts, data, session, measured: qformerPlan(recipe, parts, data) });
  }
  await using parts = await openParts(recipe);
  await using data = await TrainingData.open(recipe, parts, { session });
  if (trainsHead(recipe.model)) {
    return await measure(recipe, { parts, data, session, measured: await headPlan(recipe, parts, data) });
  }
  const prompts = await readPrompts(recipe, parts.llm.tokenizer);
  const offloaded = await openOffloaded(recipe, parts, prompts, { session });
  try {
    const { textsOf } = data;
    const { checkpoint, tokenizer } = parts.llm;
    const endSym = prompts[0]?.endSym ?? "";
    const measured: MeasuredStage = {
      stage: captionStage({ recipe, parts, offloaded, source: parts.image, prompts, textsOf }),
      source: parts.image,
      otherParts: [languageModel(`${checkpoint.path}${offloaded ? ", with layer offload" : ""}`)],
      countTokens: (text) => answerTokens(text, endSym, recipe.model.max_txt_len, tokenizer).length,
    };
    return await measure(recipe, { parts, data, session, measured });
  } finally {
    await offloaded?.close();
    // Created for the layers; a folder that already existed is not empty.
    if (offloaded) await rmdir(recipe.run.output_dir).catch(() => {});
  }
}

async function headPlan(recipe: MiniGPT4Recipe, parts: ModelParts, data: TrainingData): Promise<MeasuredStage> {
  const { textsOf, datasets } = data;
  const { checkpoint, tokenizer } = parts.llm;
  const pairs = await Promise.all(datasets.map((dataset) => listPairs(dataset)));
  const [prompt] = await readPrompts(recipe, tokenizer);
  return {
    ...(await contrastiveStage({ recipe, parts, textsOf, pairs })),
    otherParts: [{ name: "contrastive", trained: true, origin: "new" }, languageModel(checkpoint.path)],
    countTokens: (text) => answerTokens(text, prompt?.endSym ?? "", recipe.model.max_txt_len, tokenizer).length,
  };
}

function languageModel(origin: string): DryRun["parts"][number] {
  return { name: "language model", trained: false, origin };
}

function qformerPlan(recipe: QFormerRecipe, parts: QFormerParts, { textsOf }: TrainingData): MeasuredStage {
  return {
    stage: qformerStage(recipe, parts, textsOf),
    source: parts.image,
    otherParts: [{ name: "text side", trained: true, origin: parts.bert ?? "new, random" }],
    countTokens: (text) => parts.tokenizer.encode(text, recipe.model.max_txt_len).length,
  };
}

interface Measurement {
  readonly parts: VisionParts;
  readonly data: TrainingData;
  readonly session: SessionOptions;
  readonly measured: MeasuredStage;
}

async function measure(recipe: Recipe, { parts, data, session, measured }: Measurement): Promise<DryRun> {
  const { run } = recipe;
  const trained: readonly string[] = recipe.model.trained;
  const datasets: DatasetPlan[] = [];
  for (const [i, [name, { path }]] of Object.entries(recipe.datasets).entries()) {
    const dataset = data.datasets[i] as Dataset;
    const texts = (pair: ImageTextPair) => data.textsOf({ pair, dataset: i });
    datasets.push({ name, path, ...(await summarize(dataset, texts, measured.countTokens)) });
  }
  const steps = await data.countSteps();
  const { seconds, padding } = await timeSteps(recipe, { parts, data, session, measured });
  const images = datasets.reduce((sum, dataset) => sum + dataset.images, 0);
  const rows = images * run.views + data.validation.length;
  return {
    parts: [
      ...Object.entries(parts.origins).map(([name, origin]) => ({
        name,
        trained: trained.some((one) => covers(one, name)),
        origin: origin ?? "new, random",
      })),
      ...measured.otherParts,
    ],
    trainedParameters: [...measured.stage.trained.values()].reduce(
      (sum, { shape }) => sum + sizeOf(shape as number[]),
      0,
    ),
    datasets,
    validation: data.validation.length,
    steps,
    imagesPerStep: run.batch_size * run.accum_grad_iters,
    padding,
    cacheBytes: data.cache && rows * sizeOf(data.frozen.shape) * 2,
    cachedRows: data.cache?.size ?? 0,
    secondsPerStep: seconds,
    seconds: seconds * steps,
  };
}

async function summarize(
  dataset: Dataset,
  texts: (pair: ImageTextPair) => readonly string[],
  countTokens: (text: string) => number,
): Promise<Omit<DatasetPlan, "name" | "path">> {
  const listed = await Promise.all(dataset.parts.slice(0, listedFiles).map((part) => part.read()));
  const pairs = listed.flatMap((contents) => contents.pairs);
  const factor = dataset.parts.length / Math.max(1, listed.length);
  const sampled = pairs.slice(0, sampledPairs);
  const sizes = await Promise.all(sampled.map(imageBytes));
  return {
    format: dataset.format,
    parts: dataset.parts.length,
    isEstimate: dataset.parts.length > listed.length,
    images: Math.round(pairs.length * factor),
    texts: Math.round(pairs.reduce((sum, pair) => sum + texts(pair).length, 0) * factor),
    tokensPerText: mean(sampled.flatMap((pair) => texts(pair).map(countTokens))),
    bytes: Math.round(mean(sizes) * pairs.length * factor),
    broken: listed.reduce((sum, { invalid }) => sum + invalid.length, 0),
  };
}

async function imageBytes({ image: { path, range } }: ImageTextPair): Promise<number> {
  if (range) return range.length;
  return stat(path).then(
    ({ size }) => size,
    () => 0,
  );
}

/** Takes steps of learning rate 0. */
async function timeSteps(recipe: Recipe, { data, session, measured: { stage, source } }: Measurement) {
  const settings = {
    ...readSettings(recipe, measuredSteps + 1),
    schedule: { initLr: 0, minLr: 0, warmupLr: 0, warmupSteps: 0, totalSteps: measuredSteps + 1 },
    emaDecay: 0,
  };
  await using trainer = await Trainer.create({ stage, source, data, settings, session });
  const times: number[] = [];
  let [tokens, paddedTokens] = [0, 0];
  for (let i = 0; i <= measuredSteps; i++) {
    const report = await trainer.step();
    times.push(report.seconds);
    tokens += report.tokens;
    paddedTokens += report.paddedTokens;
  }
  return { seconds: mean(times.slice(1)), padding: 1 - tokens / paddedTokens };
}

function mean(values: readonly number[]): number {
  return values.length === 0 ? 0 : values.reduce((sum, value) => sum + value, 0) / values.length;
}
