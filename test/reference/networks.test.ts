/** The networks against what the original code computes from the same weights and images. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "vitest";
import { openCheckpoint } from "../../src/formats/open.ts";
import { readImage } from "../../src/images/decode.ts";
import { CLIP, preprocess } from "../../src/images/preprocess.ts";
import { evaVit } from "../../src/models/eva-vit.ts";
import { llama, logits } from "../../src/models/llama.ts";
import { featureShape, imageFeatures, imageTokens, type MiniGPT4Config } from "../../src/models/minigpt4.ts";
import { qformer } from "../../src/models/qformer.ts";
import { evaluate } from "../../src/runtime/session.ts";
import { type NdArray, ndarray } from "../../src/tensor/array.ts";
import { Graph } from "../../src/tensor/graph.ts";
import { expectDeviation, largestDifference } from "../helpers/deviations.ts";
import { GoldenSet, goldenFolders, type Layouts } from "../helpers/golden-set.ts";

const tolerance = 1e-3;
describe.each(goldenFolders())("%s", (folder) => {
  const name = folder.split(/[\\/]/).at(-1);

  test("pixels", async () => {
    const set = await GoldenSet.load(folder);
    const { imageSize } = set.config().encoder;
    await comparePixels(set, "pixels", imageSize);
    if (set.tensors.tensors.has("pixels_224")) await comparePixels(set, "pixels_224", 224);
    await set.close();
  });

  async function comparePixels(set: GoldenSet, tensor: string, size: number) {
    const expected = await set.tensors.readFloat32(tensor);
    let largestMean = 0;
    for (const [i, path] of set.imagePaths.entries()) {
      const { data } = preprocess(await readImage(path), { ...CLIP, size });
      const image = expected.subarray(i * data.length, (i + 1) * data.length);
      let sum = 0;
      for (let j = 0; j < data.length; j++) {
        const channel = Math.floor(j / (size * size));
        sum += Math.abs((data[j] as number) - (image[j] as number)) * 255 * (CLIP.std[channel] as number);
      }
      largestMean = Math.max(largestMean, sum / data.length);
    }
    expectDeviation(`${name}: ${tensor}, mean of the worst image (of 255)`, largestMean, 0.5);
  }

  test("image encoder, layer norm, Q-Former, projection", async () => {
    const set = await GoldenSet.load(folder);
    const config = set.config();
    const graph = new Graph();
    const w = await set.weights(graph);
    const pixels = graph.input("pixels", "float32", ["images", 3, config.encoder.imageSize, config.encoder.imageSize]);
    if (config.encoder.type !== "eva_vit" || !config.qformer)
      throw new Error("The golden sets have a ViT and a Q-Former");
    const features = imageFeatures(w, pixels, config);
    const outputs = {
      vit_out: evaVit(w.encoder, pixels, config.encoder),
      ln_vision: features,
      qformer_out: qformer(w.qformer, features, config.qformer),
      projected: imageTokens(w, features, config),
    };
    const results = await evaluate(graph, outputs, { pixels: await golden(set, "pixels") });
    for (const key of Object.keys(outputs) as (keyof typeof outputs)[]) await compare(set, key, results[key]);
    await set.close();
  });

  const layouts: Layouts[] = [{}, { llm: "llama-bin", projection: "minigpt4-legacy.pth" }];
  test.each(layouts)("projection and logits of three turns %o", async (layout) => {
    const set = await GoldenSet.load(folder);
    const config = set.config();
    const graph = new Graph();
    const w = await set.weights(graph, layout);
    const features = graph.input("features", "float32", ["images", ...featureShape(config.encoder)]);
    const projected = imageTokens(w, features, config);
    const { results } = { results: await evaluate(graph, { projected }, { features: await golden(set, "ln_vision") }) };
    const label = Object.values(layout).join(", ") || "llama-safetensors, minigpt4.pth";
    expectDeviation(
      `${name}: projected (${label})`,
      largestDifference(results.projected.data as Float32Array, await set.tensors.readFloat32("projected")),
      tolerance,
    );
    const context = await golden(set, "context_embeds");
    const { logits: found } = await evaluateLlama(set, layout, config, context);
    const expected = await set.tensors.readFloat32("logits_turn0");
    expectDeviation(
      `${name}: logits_turn0 (${label})`,
      largestDifference(found.data as Float32Array, expected),
      tolerance,
    );
    await set.close();
  });

  async function evaluateLlama(set: GoldenSet, layout: Layouts, config: MiniGPT4Config, embeddings: NdArray) {
    const graph = new Graph();
    const { llm } = await set.weights(graph, layout);
    const input = graph.input("embeddings", "float32", [1, "sequence", config.llm.hiddenSize]);
    const positions = graph.input("positions", "int64", [1, "sequence"]);
    const { hidden } = llama(llm, input, positions, config.llm);
    const length = embeddings.shape[1] as number;
    const order = ndarray(
      "int64",
      [1, length],
      BigInt64Array.from({ length }, (_, i) => BigInt(i)),
    );
    return evaluate(graph, { logits: logits(llm, hidden, config.llm) }, { embeddings, positions: order });
  }

  test.runIf(existsSync(join(folder, "goldens-noqformer.safetensors")))("the form without a Q-Former", async () => {
    const set = await GoldenSet.load(folder);
    const config = set.config("joined patches");
    const graph = new Graph();
    const w = await set.weights(graph, { projection: "minigpt4-noqformer.pth" });
    const features = graph.input("features", "float32", ["images", ...featureShape(config.encoder)]);
    const found = await evaluate(
      graph,
      { projected: imageTokens(w, features, config) },
      { features: await golden(set, "ln_vision") },
    );
    const tensors = await openCheckpoint(join(folder, "goldens-noqformer.safetensors"));
    const projected = await tensors.readFloat32("projected");
    expectDeviation(
      `${name}: projected without a Q-Former`,
      largestDifference(found.projected.data as Float32Array, projected),
      tolerance,
    );
    const shape = tensors.tensors.get("context_embeds")?.shape ?? [];
    const context = ndarray("float32", shape, await tensors.readFloat32("context_embeds"));
    const { logits: scores } = await evaluateLlama(set, {}, config, context);
    expectDeviation(
      `${name}: logits without a Q-Former`,
      largestDifference(scores.data as Float32Array, await tensors.readFloat32("logits")),
      tolerance,
    );
    await tensors.close();
    await set.close();
  });

  async function golden(set: GoldenSet, tensor: string): Promise<NdArray<"float32">> {
    return ndarray("float32", set.tensors.tensors.get(tensor)?.shape ?? [], await set.tensors.readFloat32(tensor));
  }

  async function compare(set: GoldenSet, tensor: string, found: NdArray) {
    const expected = await set.tensors.readFloat32(tensor);
    expectDeviation(`${name}: ${tensor}`, largestDifference(found.data as Float32Array, expected), tolerance);
  }
});
