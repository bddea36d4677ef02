import { expect, test } from "vitest";
import {
  headNames,
  imageEmbedding,
  meanRow,
  textArrays,
  textEmbedding,
  textInputs,
} from "../../src/models/contrastive-head.ts";
import { Weights } from "../../src/nn/weights.ts";
import { evaluate } from "../../src/runtime/session.ts";
import { ndarray } from "../../src/tensor/array.ts";
import { Graph } from "../../src/tensor/graph.ts";
import { tinyConfig } from "../helpers/tiny-llama.ts";
import { inMemory, normal } from "../helpers/weights-in-memory.ts";

const config = tinyConfig(20);
const width = config.hiddenSize;
const table = normal([20, width], 1);
const weights = normal([20], 2);
const head = {
  [headNames.wordWeight]: weights,
  [headNames.wordMean]: ndarray("float32", [width], meanRow(table.data, width)),
};
const shift = normal([width], 3);
const tokens = normal([2, 5, width], 4);
// The last text has no word that counts.
const silent = weights.data.findIndex((weight) => weight < 0);
const texts = [[3, 4, 4], [5, 6, 7, 8, 9], [silent]];

async function embed(withShift: boolean) {
  const graph = new Graph();
  const w = new Weights(graph, inMemory(withShift ? { ...head, [headNames.imageShift]: shift } : head));
  const llm = new Weights(graph, inMemory({ "model.embed_tokens.weight": table }));
  const outputs = {
    images: imageEmbedding(w, graph.input("tokens", "float32", ["images", 5, width])),
    texts: textEmbedding(w, llm, textInputs(w, "texts"), config),
  };
  expect([outputs.images.shape, outputs.texts.shape]).toEqual([
    ["images", width],
    ["texts", width],
  ]);
  return evaluate(graph, outputs, { tokens, ...textArrays(texts) });
}

test.each([true, false])("embeddings match plain arithmetic (image shift: %s)", async (isShifted) => {
  const { images, texts: found } = await embed(isShifted);
  const means = columns((c) => mean(columnOf(table.data, c)));
  const word = (id: number) => unit(columns((c) => (table.data[id * width + c] as number) - (means[c] as number)));
  const ofText = (ids: readonly number[]) =>
    unit(columns((c) => sum(ids.map((id) => Math.max(0, weights.data[id] as number) * (word(id)[c] as number)))));
  expectClose(found.data as Float32Array, texts.flatMap(ofText));

  const ofImage = (image: number) => {
    const rows = tokens.data.subarray(image * 5 * width, (image + 1) * 5 * width);
    const direction = unit(columns((c) => mean(columnOf(rows, c))));
    return isShifted ? unit(columns((c) => (direction[c] as number) - (shift.data[c] as number))) : direction;
  };
  expectClose(images.data as Float32Array, [0, 1].flatMap(ofImage));
});

test("embeddings have length 1, or 0 without a word of positive weight", async () => {
  const { images, texts: found } = await embed(true);
  const lengths = (data: Float32Array) =>
    Array.from({ length: data.length / width }, (_, i) => Math.hypot(...data.subarray(i * width, (i + 1) * width)));
  for (const length of lengths(images.data as Float32Array)) expect(length).toBeCloseTo(1, 5);
  const [first, second, none] = lengths(found.data as Float32Array);
  expect(first).toBeCloseTo(1, 5);
  expect(second).toBeCloseTo(1, 5);
  expect(none).toBe(0);
});

test("texts are padded where the mask is 0", () => {
  const { textIds, textMask } = textArrays([[3, 4], [5, 6, 7], [8]]);
  expect(textIds).toEqual(ndarray("int64", [3, 3], BigInt64Array.of(3n, 4n, 0n, 5n, 6n, 7n, 8n, 0n, 0n)));
  expect(Array.from(textMask.data as Float32Array)).toEqual([1, 1, 0, 1, 1, 1, 1, 0, 0]);
});

test("the mean of rows", () => {
  expect(Array.from(meanRow(Float32Array.of(1, 2, 5, 2, 3, 8), 2))).toEqual([3, 4]);
});

function expectClose(found: Float32Array, expected: readonly number[]): void {
  expect(found).toHaveLength(expected.length);
  expected.forEach((value, i) => {
    expect(found[i]).toBeCloseTo(value, 5);
  });
}

function columns(value: (column: number) => number): number[] {
  return Array.from({ length: width }, (_, column) => value(column));
}

function columnOf(data: Float32Array, column: number): number[] {
  return Array.from(data).filter((_, i) => i % width === column);
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}

function mean(values: readonly number[]): number {
  return sum(values) / values.length;
}

function unit(values: readonly number[]): number[] {
  const length = Math.sqrt(sum(values.map((value) => value * value)) + 1e-12);
  return values.map((value) => value / length);
}
