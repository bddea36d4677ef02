/** The input of an image encoder in a graph, and what it is fed with. */
import type { EncoderConfig } from "../models/minigpt4.ts";
import { joinFloats, type NdArray, ndarray } from "../tensor/array.ts";
import type { Graph, Value } from "../tensor/graph.ts";

/** Pictures [images, 3, size, size]. */
export function pixelInput(graph: Graph, { imageSize }: EncoderConfig): Value {
  return graph.input("pixels", "float32", ["images", 3, imageSize, imageSize]);
}

/** @param pictures [3, size, size] each */
export function pixelFeeds(pictures: readonly Float32Array[], { imageSize }: EncoderConfig): Record<"pixels", NdArray> {
  const shape = [pictures.length, 3, imageSize, imageSize];
  return { pixels: ndarray("float32", shape, joinFloats(pictures)) };
}
