/** The real EfficientNet-Lite0 on four photos: features of each cell, and what the classifier says. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { openCheckpoint } from "../../src/formats/open.ts";
import { efficientNetFeatures, efficientNetLogits } from "../../src/models/efficientnet.ts";
import { Weights } from "../../src/nn/weights.ts";
import { evaluate } from "../../src/runtime/session.ts";
import { ndarray } from "../../src/tensor/array.ts";
import { Graph, type Value } from "../../src/tensor/graph.ts";
import { skipWithout } from "../helpers/capabilities.ts";
import { expectDeviation, largestDifference, noteSkipped, relativeDifference } from "../helpers/deviations.ts";
import { goldenRoot } from "../helpers/golden-set.ts";

const goldens = join(goldenRoot, "efficientnet_lite0.safetensors");
/** `MINIGPT4_EFFICIENTNET` may name the original .pth; the encoder that comes with the package is it, in float16. */
const original = process.env.MINIGPT4_EFFICIENTNET;
const weightsPath = original ?? join(import.meta.dirname, "../../models/nano/encoder.safetensors");
/** What rounding the weights to float16 costs, as a share of the largest feature. */
const tolerance = original ? 1e-3 : 3e-2;

test.runIf(existsSync(goldens))("EfficientNet-Lite0", async (context) => {
  if (!existsSync(weightsPath)) {
    const why = `its weights are not there: ${weightsPath}`;
    console.warn(`EfficientNet-Lite0 is not tested, because ${why}`);
    noteSkipped("efficientnet_lite0", "its weights are not there");
    return skipWithout(context, "weights", why);
  }
  const file = await openCheckpoint(goldens);
  const checkpoint = await openCheckpoint(weightsPath);
  const pixels = await file.readFloat32("pixels");
  const shape = file.tensors.get("pixels")?.shape ?? [];
  const graph = new Graph();
  const weights = new Weights(graph, checkpoint);
  const features = efficientNetFeatures(weights, graph.input("pixels", "float32", ["images", ...shape.slice(1)]));
  const outputs: Record<string, Value> = { features };
  if (weights.has("_fc")) outputs.logits = efficientNetLogits(weights, features);
  const found = await evaluate(graph, outputs, { pixels: ndarray("float32", shape, pixels) });
  for (const name of Object.keys(outputs)) {
    const expected = await file.readFloat32(name);
    const values = found[name]?.data as Float32Array;
    expect(values.length).toBe(expected.length);
    const deviation = original ? largestDifference(values, expected) : relativeDifference(values, expected);
    expectDeviation(
      `efficientnet_lite0: ${name}${original ? "" : " (float16 weights, relative)"}`,
      deviation,
      tolerance,
    );
  }
  await file.close();
  await checkpoint.close();
});
