/** The Q-Former's text side and its masks: features, similarities, losses and gradients of BLIP-2's pre-training. */
import { describe, expect, test } from "vitest";
import { ndarray } from "../../src/tensor/array.ts";
import { gradients } from "../../src/tensor/gradients.ts";
import { Graph, type Value } from "../../src/tensor/graph.ts";
import { evaluate } from "../../src/tensor/session.ts";
import { expectDeviation, largestDifference, relativeDifference } from "./deviations.ts";
import { GoldenSet, goldenFolders } from "./golden-set.ts";
import { captioning, contrastive, matching } from "./qformer-pretraining.ts";

const tolerance = 1e-3;
const lossTolerance = 1e-4;
const prefix = "qf_grad.";
/** Gradients are named without the prefix that the weights have in their file. */
const weightName = (key: string) => key.slice(prefix.length).replace(/^(?=bert\.|cls\.)/, "Qformer.");

describe.each(goldenFolders())("%s", (folder) => {
  test("contrastive, matching and captioning on given pairs", async () => {
    const set = await GoldenSet.load(folder);
    const config = set.config().qformer;
    if (!config) throw new Error(`${folder} has no Q-Former`);
    const texts = set.goldens.qformer_pretraining;
    const expected = await readAll(set, (key) => key.startsWith("qf_"));
    const gradientKeys = [...expected.keys()].filter((key) => key.startsWith(prefix));
    const trained = gradientKeys.map(weightName);

    const graph = new Graph();
    const { qformer: w } = await set.weights(graph, {}, (name) => trained.includes(name));
    const images = graph.constant(await firstImages(set, texts.input_ids.length));
    const itc = contrastive(w, images, texts, config);
    const itm = matching(w, images, texts, config);
    const lm = captioning(w, images, texts, config);
    const inputs = trained.map((name) => w.trained.get(name) as Value);
    const wanted = gradients(itc.loss.add(itm.loss).add(lm.loss), inputs);
    const outputs = {
      image_feats: itc.imageFeats,
      text_feats: itc.textFeats,
      sim_i2t: itc.simI2t,
      sim_t2i: itc.simT2i,
      itm_logits: itm.logits,
      loss_itc: itc.loss,
      loss_itm: itm.loss,
      loss_lm: lm.loss,
      ...Object.fromEntries(gradientKeys.map((key, i) => [key, wanted[i] as Value])),
    };
    const feeds = await set.qformerWeights(trained);
    const results = await evaluate<string>(graph, outputs, feeds);
    const found = (key: string) => results[key]?.data as Float32Array;

    for (const key of ["image_feats", "text_feats", "sim_i2t", "sim_t2i", "itm_logits"]) {
      const deviation = largestDifference(found(key), expected.get(`qf_${key}`) ?? []);
      expectDeviation(`${set.name}: Q-Former ${key}`, deviation, tolerance);
    }
    for (const key of ["loss_itc", "loss_itm", "loss_lm"] as const) {
      const deviation = Math.abs((found(key)[0] as number) - texts[key]);
      expectDeviation(`${set.name}: Q-Former ${key}`, deviation, lossTolerance);
    }
    expect(gradientKeys.length).toBeGreaterThan(10);
    for (const key of gradientKeys) {
      const deviation = relativeDifference(found(key), expected.get(key) ?? []);
      expectDeviation(`${set.name}: Q-Former gradient of ${weightName(key)}`, deviation, tolerance);
    }
    await set.close();
  });
});

async function readAll(set: GoldenSet, wanted: (key: string) => boolean): Promise<Map<string, Float32Array>> {
  const keys = [...set.tensors.tensors.keys()].filter(wanted);
  return new Map(await Promise.all(keys.map(async (key) => [key, await set.tensors.readFloat32(key)] as const)));
}

/** The first `count` pictures of `ln_vision`. */
async function firstImages(set: GoldenSet, count: number) {
  const [, cells = 0, width = 0] = set.tensors.tensors.get("ln_vision")?.shape ?? [];
  const all = await set.tensors.readFloat32("ln_vision");
  return ndarray("float32", [count, cells, width], all.slice(0, count * cells * width));
}
