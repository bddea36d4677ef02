/** Measures whether an image encoder can be stored in int8, which is fastest and smallest, without changing its features of photos. */
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { readImage } from "../images/decode.ts";
import { CLIP, preprocess } from "../images/preprocess.ts";
import { type EvaVitConfig, embedPatches, evaVitBlock, evaVitMatrices } from "../models/eva-vit.ts";
import { Weights } from "../nn/weights.ts";
import { evaluate, type SessionOptions } from "../runtime/session.ts";
import { concatFloat32, type NdArray, ndarray } from "../tensor/array.ts";
import { Graph, type Value } from "../tensor/graph.ts";
import { quantizationPolicy } from "../tensor/quant/quantization.ts";
import type { WeightSource } from "../tensor/weight-source.ts";

/** Int8 is used if the features of each photo have at least this cosine similarity to those in float32. */
export const leastSimilarity = 0.999;

/** Photos of the package. */
const photos = join(import.meta.dirname, "..", "..", "examples", "images");

export interface SimilarityOptions extends SessionOptions {
  readonly signal?: AbortSignal;
  /** Called with the number of compared blocks of the encoder. */
  readonly onProgress?: (done: number, total: number) => void;
}

/**
 * The smallest cosine similarity over photos between an encoder's output in int8 and in float32, with each token normalised
 * as `ln_vision` does. Both run one block at a time, so that it takes little memory.
 */
export async function int8Similarity(
  source: WeightSource,
  config: EvaVitConfig,
  { signal, onProgress, ...session }: SimilarityOptions = {},
): Promise<number> {
  const { imageSize, numHiddenLayers, hiddenSize } = config;
  const images = await shippedPhotos(config);
  const pixels = ndarray("float32", [images.length, 3, imageSize, imageSize], concatFloat32(images));
  const run = async (x: NdArray, matrices: "float32" | "int8", write: (w: Weights, x: Value) => Value) => {
    signal?.throwIfAborted();
    const graph = new Graph();
    const quantization = quantizationPolicy(matrices, evaVitMatrices);
    const input = graph.input("x", "float32", ["images", ...x.shape.slice(1)]);
    return (await evaluate(graph, { out: write(new Weights(graph, source, { quantization }), input) }, { x }, session))
      .out;
  };
  let exact = await run(pixels, "float32", (w, x) => embedPatches(w, x, config));
  let rounded = exact;
  for (let i = 0; i < numHiddenLayers; i++) {
    const block = (w: Weights, x: Value) => evaVitBlock(w.at("blocks").at(i), x, config);
    exact = await run(exact, "float32", block);
    rounded = await run(rounded, "int8", block);
    onProgress?.(i + 1, numHiddenLayers);
  }
  const [a, b] = [exact, rounded].map(({ data }) => normalize(data as Float32Array, hiddenSize)) as [
    Float32Array,
    Float32Array,
  ];
  const length = a.length / images.length;
  const similarities = images.map((_, i) =>
    cosine(a.subarray(i * length, (i + 1) * length), b.subarray(i * length, (i + 1) * length)),
  );
  return Math.min(...similarities);
}

async function shippedPhotos({ imageSize }: EvaVitConfig): Promise<Float32Array[]> {
  const names = (await readdir(photos)).filter((name) => name.endsWith(".jpg")).sort();
  const spec = { ...CLIP, size: imageSize };
  return Promise.all(names.map(async (name) => preprocess(await readImage(join(photos, name)), spec).data));
}

/** Rows without their mean, L2-normalised, so that large values that a layer norm removes do not count. */
function normalize(values: Float32Array, width: number): Float32Array {
  const out = new Float32Array(values.length);
  for (let start = 0; start < values.length; start += width) {
    const row = values.subarray(start, start + width);
    const mean = row.reduce((sum, value) => sum + value, 0) / width;
    const length = Math.sqrt(row.reduce((sum, value) => sum + (value - mean) ** 2, 0)) || 1;
    for (let i = 0; i < width; i++) out[start + i] = ((row[i] as number) - mean) / length;
  }
  return out;
}

function cosine(a: Float32Array, b: Float32Array): number {
  let [dot, aa, bb] = [0, 0, 0];
  for (let i = 0; i < a.length; i++) {
    const [x, y] = [a[i] as number, b[i] as number];
    dot += x * y;
    aa += x * x;
    bb += y * y;
  }
  return dot / Math.sqrt(aa * bb);
}
