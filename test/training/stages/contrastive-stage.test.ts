import { expect, test } from "vitest";
import { headNames } from "../../../src/models/contrastive-head.ts";
import { imageTokens, type MiniGPT4Config } from "../../../src/models/minigpt4.ts";
import { initialProjection, initialQFormer } from "../../../src/models/qformer-init.ts";
import { Weights } from "../../../src/nn/weights.ts";
import { evaluate } from "../../../src/runtime/session.ts";
import { type NdArray, ndarray } from "../../../src/tensor/array.ts";
import { Graph } from "../../../src/tensor/graph.ts";
import { Random } from "../../../src/tensor/random.ts";
import { captionArrays, contrastiveLoss, initialContrastive } from "../../../src/training/stages/contrastive-stage.ts";
import { TrainingStep } from "../../../src/training/step.ts";
import { initialState } from "../../../src/training/training-state.ts";
import { tinyConfig } from "../../helpers/tiny-llama.ts";
import { inMemory, normal } from "../../helpers/weights-in-memory.ts";

const qformer = {
  numQueryTokens: 3,
  hiddenSize: 12,
  numHiddenLayers: 1,
  numAttentionHeads: 3,
  intermediateSize: 20,
  encoderWidth: 1280,
  crossAttentionFrequency: 1,
  layerNormEps: 1e-12,
};
const config: MiniGPT4Config = {
  encoder: { type: "efficientnet_lite0", imageSize: 224 },
  qformer,
  llm: tinyConfig(30),
};
const width = config.llm.hiddenSize;
const table = normal([30, width], 1);
const words = centredWords();
const captions = [[3, 4], [5, 6, 7], [8]];
const names = Array.from({ length: 1000 }, (_, i) => [i % 30, (i * 7) % 30]);

test("the loss is that of the formulas, with and without the encoder's classifier as a teacher", async () => {
  const random = new Random(5);
  const parameters = {
    ...initialQFormer(qformer, random),
    ...initialProjection(qformer.hiddenSize, width, random),
    ...initialContrastive(captions, table.data, config.llm, { hasTeacher: true }),
  };
  const classifier = { "_fc.weight": normal([1000, 1280], 7), "_fc.bias": normal([1000], 8) };
  const pooled = normal([3, 1, 1280], 9);
  const features = normal([3, 49, 1280], 10);
  const run = async (hasTeacher: boolean) => {
    const graph = new Graph();
    const w = new Weights(graph, inMemory(parameters));
    const input = graph.input("features", "float32", ["images", 49, 1280]);
    const llm = new Weights(graph, inMemory({ "model.embed_tokens.weight": table }));
    const parts = { encoder: w, qformer: w, projection: w, llm };
    const teacher = { encoder: new Weights(graph, inMemory(classifier)), names };
    const loss = contrastiveLoss(parts, w, input, config, hasTeacher ? { teacher } : {});
    const feeds = { features, ...captionArrays(captions), ...(hasTeacher && { pooledFeatures: pooled }) };
    return evaluate(graph, { tokens: imageTokens(parts, input, config), loss }, feeds);
  };
  const { tokens, loss: alone } = await run(false);
  const { loss: taught } = await run(true);

  const wordWeights = parameters["word_weight.weight"]?.data as Float32Array;
  const ofText = (ids: readonly number[]) => unit(weightedSum(ids, wordWeights));
  const images = [0, 1, 2].map((i) => unit(meanOfTokens(tokens.data as Float32Array, i)));
  const scale = 1 / 0.07;
  const similarity = images.map((p) => captions.map((c) => scale * dot(p, ofText(c))));
  const transposed = similarity.map((_, i) => similarity.map((row) => row[i] as number));
  const smoothed = (rows: number[][]) =>
    mean(rows.map((row, i) => -0.9 * (logSoftmax(row)[i] as number) - 0.1 * mean(logSoftmax(row))));
  const paired = (smoothed(similarity) + smoothed(transposed)) / 2;
  expect(alone.data[0]).toBeCloseTo(paired, 4);

  const classes = names.map(ofText);
  const distilled = mean(
    images.map((image, i) => {
      const row = Array.from(pooled.data.subarray(i * 1280, (i + 1) * 1280));
      const scores = Array.from({ length: 1000 }, (_, k) => {
        const weight = classifier["_fc.weight"].data.subarray(k * 1280, (k + 1) * 1280);
        return (classifier["_fc.bias"].data[k] as number) + dot(row, weight);
      });
      const seen = logSoftmax(scores).map(Math.exp);
      return -dot(seen, logSoftmax(classes.map((c) => scale * dot(image, c))));
    }),
  );
  expect(taught.data[0]).toBeCloseTo(paired + distilled, 3);
  expect(distilled).toBeGreaterThan(1);
});

test("a head that is trained alone learns which words tell, and what images have in common", async () => {
  // Captions of a word that tells and three that do not; images that show the one, and something that all share.
  const [telling, filler] = [
    [0, 1, 2, 3, 4, 5, 6, 7],
    [20, 21, 22, 23, 24, 25, 26, 27, 28, 29],
  ];
  const common = normal([width], 11).data;
  const features = Float32Array.from({ length: 8 * width }, (_, i) => {
    const own = words[telling[Math.floor(i / width)] as number]?.[i % width] as number;
    return own + (common[i % width] as number);
  });
  const identity = Float32Array.from({ length: width * width }, (_, i) => Number(i % (width + 1) === 0));
  const parameters: Record<string, NdArray<"float32">> = {
    "llama_proj.weight": ndarray("float32", [width, width], identity),
    "llama_proj.bias": ndarray("float32", [width], new Float32Array(width)),
    ...initialContrastive([[0]], table.data, config.llm, { hasHead: true }),
  };
  parameters["word_weight.weight"] = ndarray("float32", [30, 1], new Float32Array(30).fill(0.5));
  const graph = new Graph();
  const trainable = (name: string) => ["word_weight.weight", headNames.imageShift, "log_scale"].includes(name);
  const w = new Weights(graph, inMemory(parameters), { trainable });
  const llm = new Weights(graph, inMemory({ "model.embed_tokens.weight": table }));
  const input = graph.input("features", "float32", ["images", 1, width]);
  const parts = { encoder: w, qformer: w, projection: w, llm };
  const loss = contrastiveLoss(parts, w, input, config, { depth: "qformer" });
  const initial = Object.fromEntries([...w.trained.keys()].map((name) => [name, parameters[name] ?? normal([1], 0)]));
  const optimizer = { beta1: 0.9, beta2: 0.999, eps: 1e-8, weightDecay: 0 };
  const step = await TrainingStep.create({ graph, loss, trained: w.trained, state: initialState(initial), optimizer });
  const random = new Random(3);
  const losses: number[] = [];
  for (let i = 0; i < 150; i++) {
    const drawn = telling.map((word) => [word, ...Array.from({ length: 3 }, () => filler[random.below(10)] as number)]);
    const feeds = { features: ndarray("float32", [8, 1, width], features), ...captionArrays(drawn) };
    losses.push((await step.run([feeds], 0.02)).loss);
  }
  await step.close();
  const late = mean(losses.slice(-20));
  expect(late).toBeLessThan(0.5 * mean(losses.slice(0, 5)));
  const learned = Array.from(step.state.parameters["word_weight.weight"]?.data ?? []);
  expect(mean(telling.map((id) => learned[id] as number))).toBeGreaterThan(0.5);
  expect(mean(filler.map((id) => learned[id] as number))).toBeLessThan(0.1);
  // The shift points where all images do.
  const shift = Array.from(step.state.parameters[headNames.imageShift]?.data ?? []);
  expect(dot(unit(shift), unit(Array.from(common)))).toBeGreaterThan(0.8);
});

test("each caption belongs to the image at its own place", () => {
  expect(captionArrays(captions).own).toEqual(ndarray("int64", [3, 1], BigInt64Array.of(0n, 1n, 2n)));
});

/** The word embeddings, their mean taken out, and of length 1. */
function centredWords(): number[][] {
  const rows = Array.from({ length: 30 }, (_, id) => Array.from(table.data.subarray(id * width, (id + 1) * width)));
  const means = rows[0]?.map((_, column) => mean(rows.map((row) => row[column] as number))) ?? [];
  return rows.map((row) => unit(row.map((value, column) => value - (means[column] as number))));
}

function weightedSum(ids: readonly number[], weights: Float32Array): number[] {
  return Array.from({ length: width }, (_, column) =>
    ids.reduce((sum, id) => sum + Math.max(0, weights[id] as number) * (words[id]?.[column] as number), 0),
  );
}

function meanOfTokens(data: Float32Array, image: number): number[] {
  const at = (token: number, column: number) =>
    data[(image * qformer.numQueryTokens + token) * width + column] as number;
  return Array.from({ length: width }, (_, column) => mean([0, 1, 2].map((token) => at(token, column))));
}

function dot(a: readonly number[], b: ArrayLike<number>): number {
  return a.reduce((sum, value, i) => sum + value * (b[i] as number), 0);
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

function unit(values: readonly number[]): number[] {
  const length = Math.sqrt(dot(values, values) + 1e-12);
  return values.map((value) => value / length);
}

function logSoftmax(scores: readonly number[]): number[] {
  const largest = Math.max(...scores);
  const total = Math.log(scores.reduce((sum, score) => sum + Math.exp(score - largest), 0));
  return scores.map((score) => score - largest - total);
}
