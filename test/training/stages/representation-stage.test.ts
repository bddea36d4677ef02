/** BLIP-2's representation learning as a stage: batches of a step add up, negatives are others, what is generated is seen once. */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Blip2Config } from "../../../src/models/blip2.ts";
import { initialHeads, initialQFormer } from "../../../src/models/qformer-init.ts";
import { masked } from "../../../src/nn/attention.ts";
import { Session } from "../../../src/runtime/session.ts";
import { type NdArray, ndarray } from "../../../src/tensor/array.ts";
import { Graph } from "../../../src/tensor/graph.ts";
import { Random } from "../../../src/tensor/random.ts";
import { weightsInMemory } from "../../../src/tensor/weight-source.ts";
import { loadWordPiece, type WordPieceTokenizer } from "../../../src/tokenizers/wordpiece.ts";
import { drawNegatives, type RepresentationLoss } from "../../../src/training/stages/representation.ts";
import { representationStage } from "../../../src/training/stages/representation-stage.ts";
import { stepRandom } from "../../../src/training/stages/stage.ts";
import { Trainer, type TrainerData } from "../../../src/training/trainer.ts";

const words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "red", "green", "blue", "wall", "and", "door"];
let folder: string;
let tokenizer: WordPieceTokenizer;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "minigpt4-representation-"));
  await writeFile(join(folder, "vocab.txt"), words.join("\n"));
  tokenizer = await loadWordPiece(folder);
});
afterAll(() => rm(folder, { recursive: true, force: true }));

const config: Blip2Config = {
  encoder: { type: "efficientnet_lite0", imageSize: 64 },
  qformer: {
    numQueryTokens: 3,
    hiddenSize: 8,
    numHiddenLayers: 2,
    numAttentionHeads: 2,
    intermediateSize: 16,
    encoderWidth: 1280,
    crossAttentionFrequency: 2,
    layerNormEps: 1e-12,
    vocabSize: words.length + 1,
    maxPositionEmbeddings: 12,
  },
  embedDim: 4,
};

const texts = ["a red wall", "a green wall and a blue door", "blue", "a door and a green door"];
const samples = texts.map((text, i) => ({
  pair: { name: `${i}.png`, image: { path: "" }, texts: [text] },
  dataset: 0,
  image: { features: Float32Array.from({ length: 4 * 1280 }, (_, j) => Math.sin(i * 7 + j)) },
}));

/** New weights, with queries that differ so much that rounding does not decide which of them is nearest to a text. */
function source() {
  const random = new Random(5);
  const arrays = { ...initialQFormer(config.qformer, random), ...initialHeads(config.qformer, 4, random) };
  for (const [name, { data }] of Object.entries(arrays)) if (name !== "temp") data.set(data.map((value) => value * 5));
  return weightsInMemory("new weights", arrays);
}

function stageWith(losses: readonly RepresentationLoss[]) {
  return representationStage({
    config,
    depth: "encoder",
    source: source(),
    isTrained: () => true,
    losses,
    tokenizer,
    textsOf: ({ pair }) => pair.texts,
    maxTextLength: 12,
    dropout: 0,
    featureDropout: 0,
    validationBatchSize: 4,
  });
}

const position = { streams: [], behind: [] };
const data: TrainerData = {
  batches: () => ({ position, next: async () => ({ samples, position }), settle: async () => {} }),
  frozen: {
    async compute(images) {
      const rows = images.flatMap((image) => ("features" in image ? [...image.features] : []));
      return ndarray("float32", [images.length, 4, 1280], Float32Array.from(rows));
    },
  },
  load: async () => samples,
  validation: [],
};

/** One step over all samples, in micro-batches of `batchSize`. */
async function step(losses: readonly RepresentationLoss[], batchSize: number) {
  const trainer = await Trainer.create({
    stage: stageWith(losses),
    source: source(),
    data,
    settings: {
      schedule: { initLr: 1e-3, minLr: 1e-3, warmupLr: 0, warmupSteps: 0, totalSteps: 1 },
      optimizer: { beta1: 0.9, beta2: 0.999, eps: 1e-8, weightDecay: 0 },
      batchSize,
      accumulate: batchSize < samples.length ? 2 : 1,
      seed: 1,
      emaDecay: 0,
      validateEvery: 1,
      saveEvery: 1,
    },
  });
  const report = await trainer.step();
  await trainer.close();
  return { report, gradients: trainer.state.means };
}

test("the batches of a step learn what one large batch does, contrast included", async () => {
  const whole = await step(["itc", "itg"], 4);
  for (const batchSize of [2, 3]) {
    const parts = await step(["itc", "itg"], batchSize);
    expect(parts.report.loss).toBeCloseTo(whole.report.loss, 4);
    expect(parts.report.terms.itc).toBeCloseTo(whole.report.terms.itc ?? 0, 4);
    expect(Object.keys(parts.gradients)).toEqual(Object.keys(whole.gradients));
    for (const [name, { data }] of Object.entries(whole.gradients)) {
      const found = parts.gradients[name]?.data ?? [];
      const largest = Math.max(...data.map(Math.abs));
      const difference = Math.max(...data.map((value, i) => Math.abs(value - (found[i] as number))));
      expect(difference, name).toBeLessThanOrEqual(2e-5 * largest + 1e-9);
    }
  }
});

test("each loss can be left out, with the weights that only it trains", async () => {
  const trainedBy = (losses: readonly RepresentationLoss[]) => [...stageWith(losses).trained.keys()];
  const all = trainedBy(["itc", "itm", "itg"]);
  expect(all).toEqual(
    expect.arrayContaining(["temp", "itm_head.weight", "vision_proj.weight", "Qformer.cls.predictions.bias"]),
  );
  const generation = trainedBy(["itg"]);
  expect(generation).not.toContain("temp");
  expect(generation).not.toContain("itm_head.weight");
  // The last layer's queries are seen by nobody then.
  expect(generation).toContain("Qformer.bert.encoder.layer.0.intermediate_query.dense.weight");
  expect(generation).not.toContain("Qformer.bert.encoder.layer.1.intermediate_query.dense.weight");
  for (const alone of ["itc", "itm", "itg"] as const) {
    const { report } = await step([alone], 4);
    expect(Object.keys(report.terms)).toEqual([alone]);
    expect(report.loss).toBeCloseTo(report.terms[alone] ?? 0, 5);
  }
  const { report } = await step(["itc", "itm", "itg"], 4);
  const sum = Object.values(report.terms).reduce((total, term) => total + term);
  expect(Object.keys(report.terms)).toEqual(["itc", "itm", "itg"]);
  expect(report.loss).toBeCloseTo(sum, 5);
});

test("an image is never its own negative, however often it is in the batch", () => {
  const stage = stageWith(["itm"]);
  const [first, second] = samples as [(typeof samples)[number], (typeof samples)[number]];
  const feeds = stage
    .compose([first, second, first], stepRandom(1, 1))
    .feeds(ndarray("float32", [3, 4, 1280], new Float32Array(3 * 4 * 1280)), { targets: 1, samples: 3 });
  for (const name of ["captionNoise", "imageNoise"]) {
    const noise = (feeds[name] as NdArray<"float32">).data;
    const hidden = [...noise.keys()].filter((i) => noise[i] === masked);
    expect(hidden).toEqual([0, 2, 4, 6, 8]);
    expect(noise.every(Number.isFinite)).toBe(true);
  }
  expect(stage.compose([first], stepRandom(1, 1)).targets).toBe(0);
});

test("wrong pairs are drawn by how near they are", async () => {
  const graph = new Graph();
  const similarity = graph.input("similarity", "float32", ["images", "images"]);
  const drawn = drawNegatives("noise", graph, similarity);
  const session = await Session.create(graph, { drawn });
  // Of the first row, the second and third are twice and once as likely; the fourth is far.
  const rows = Float32Array.from({ length: 16 }, (_, i) => (i < 4 ? ([0, Math.log(2), 0, -20][i] as number) : 0));
  const counts = [0, 0, 0, 0];
  const stage = stageWith(["itm"]);
  const features = ndarray("float32", [4, 4, 1280], new Float32Array(4 * 4 * 1280));
  for (let i = 0; i < 600; i++) {
    const feeds = stage.compose(samples, stepRandom(1, i)).feeds(features, { targets: 1, samples: 4 });
    const found = await session.run({
      similarity: ndarray("float32", [4, 4], rows),
      noise: feeds.imageNoise as NdArray,
    });
    const [first = 0] = integers(found.drawn);
    counts[first] = (counts[first] as number) + 1;
  }
  await session.close();
  expect(counts[0]).toBe(0);
  expect((counts[1] as number) / 600).toBeCloseTo(2 / 3, 1);
  expect((counts[2] as number) / 600).toBeCloseTo(1 / 3, 1);
  expect(counts[3]).toBeLessThan(20);
});

test("a text is generated from [DEC] on; padding is neither seen nor learned", () => {
  const composed = stageWith(["itg"]).compose(samples.slice(0, 2), stepRandom(1, 1));
  const feeds = composed.feeds(ndarray("float32", [2, 4, 1280], new Float32Array(2 * 4 * 1280)), {
    targets: 13,
    samples: 2,
  });
  const ids = [...texts.slice(0, 2).map((text) => tokenizer.encode(text, 12))];
  const [short, long] = ids as [number[], number[]];
  expect(composed.targets).toBe(short.length - 1 + long.length - 1);
  expect(integers(feeds.targetIds)).toEqual([...short.slice(1), ...long.slice(1)]);
  expect(integers(feeds.targetIndices)).toEqual([
    ...short.slice(1).keys(),
    ...[...long.slice(1).keys()].map((place) => place + long.length),
  ]);
  const mask = integers(feeds.textMask);
  expect(mask.slice(0, long.length)).toEqual(Array.from(long, (_, i) => Number(i < short.length)));
  expect(feeds.targetShare?.data[0]).toBeCloseTo(1 / 13, 6);
});

function integers(array: NdArray | undefined): number[] {
  return Array.from(array?.data as BigInt64Array, Number);
}
