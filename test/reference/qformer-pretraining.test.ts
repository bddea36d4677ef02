/** BLIP-2's first pre-training stage on given pairs and negatives: features, similarities, the three losses and gradients. */
import { describe, expect, test } from "vitest";
import { indices } from "../../src/generation/language-model.ts";
import { masked } from "../../src/nn/attention.ts";
import { evaluate } from "../../src/runtime/session.ts";
import { type NdArray, ndarray } from "../../src/tensor/array.ts";
import { gradients } from "../../src/tensor/grad/gradients.ts";
import { Graph, type Value } from "../../src/tensor/graph.ts";
import { transpose } from "../../src/tensor/ops/layout.ts";
import { embeddedNames, representation } from "../../src/training/stages/representation.ts";
import { expectDeviation, largestDifference, relativeDifference } from "../helpers/deviations.ts";
import { GoldenSet, type Goldens, goldenFolders } from "../helpers/golden-set.ts";

type PretrainingCase = Goldens["qformer_pretraining"];

const tolerance = 1e-3;
const lossTolerance = 1e-4;
const prefix = "qf_grad.";
/** Gradients are named without the prefix that the weights have in their file. */
const weightName = (key: string) => key.slice(prefix.length).replace(/^(?=bert\.|cls\.)/, "Qformer.");
const goldenLosses = { itc: "loss_itc", itm: "loss_itm", itg: "loss_lm" } as const;

describe.each(goldenFolders())("%s", (folder) => {
  test("contrastive, matching and captioning on given pairs", async () => {
    const set = await GoldenSet.load(folder);
    const { encoder, qformer } = set.config();
    if (!qformer) throw new Error(`${folder} has no Q-Former`);
    const texts = set.goldens.qformer_pretraining;
    const expected = await readAll(set, (key) => key.startsWith("qf_"));
    const gradientKeys = [...expected.keys()].filter((key) => key.startsWith(prefix));
    const trained = gradientKeys.map(weightName);

    const graph = new Graph();
    const { qformer: w } = await set.weights(graph, {}, (name) => trained.includes(name));
    const images = await firstImages(set, texts.input_ids.length);
    const features = graph.input("features", "float32", ["images", ...images.shape.slice(1)]);
    const config = { encoder, qformer, embedDim: texts.embed_dim };
    const { loss, terms, contrast, matchLogits } = representation(w, features, config, {
      decId: texts.decoder_start_id,
    });
    if (!contrast || !matchLogits) throw new Error("All losses are wanted");
    const inputs = trained.map((name) => w.trained.get(name) as Value);
    const wanted = gradients(loss, inputs);
    const outputs = {
      image_feats: contrast.images,
      text_feats: contrast.captions,
      sim_i2t: contrast.similarity,
      sim_t2i: transpose(contrast.similarity, [1, 0]),
      itm_logits: matchLogits,
      ...terms,
      ...Object.fromEntries(gradientKeys.map((key, i) => [key, wanted[i] as Value])),
    };
    const feeds = {
      ...feedsOf(texts, [qformer.numQueryTokens, texts.embed_dim]),
      features: images,
      ...(await set.qformerWeights(trained)),
    };
    const results = await evaluate<string>(graph, outputs, feeds);
    const found = (key: string) => results[key]?.data as Float32Array;

    for (const key of ["image_feats", "text_feats", "sim_i2t", "sim_t2i", "itm_logits"]) {
      const deviation = largestDifference(found(key), expected.get(`qf_${key}`) ?? []);
      expectDeviation(`${set.name}: Q-Former ${key}`, deviation, tolerance);
    }
    for (const name of ["itc", "itm", "itg"] as const) {
      const deviation = Math.abs((found(name)[0] as number) - texts[goldenLosses[name]]);
      expectDeviation(`${set.name}: Q-Former ${goldenLosses[name]}`, deviation, lossTolerance);
    }
    expect(gradientKeys.length).toBeGreaterThan(10);
    for (const key of gradientKeys) {
      const deviation = relativeDifference(found(key), expected.get(key) ?? []);
      expectDeviation(`${set.name}: Q-Former gradient of ${weightName(key)}`, deviation, tolerance);
    }
    await set.close();
  });
});

/** The goldens' batch is a whole step, and its negatives are given: all others are masked. */
function feedsOf(texts: PretrainingCase, [queries, size]: readonly [number, number]): Record<string, NdArray> {
  const { input_ids: ids, attention_mask: mask } = texts;
  const [images, length] = [ids.length, ids[0]?.length ?? 0];
  const targets = ids.flatMap((row, i) =>
    row.flatMap((id, at) => (at > 0 && mask[i]?.[at] ? [{ place: i * length + at - 1, id }] : [])),
  );
  const noise = (chosen: readonly number[]) =>
    ndarray(
      "float32",
      [images, images],
      Float32Array.from(chosen.flatMap((one) => ids.map((_, i) => (i === one ? 0 : masked)))),
    );
  const float = (shape: readonly number[], ...values: number[]) => ndarray("float32", shape, Float32Array.from(values));
  return {
    textIds: indices([images, length], ids.flat()),
    textMask: indices([images, length], mask.flat()),
    places: indices(
      [images, 1],
      ids.map((_, i) => i),
    ),
    otherPlaces: indices([0, 1], []),
    [embeddedNames.images]: float([0, queries, size]),
    [embeddedNames.captions]: float([0, size]),
    captionNoise: noise(texts.negative_image_of_text),
    imageNoise: noise(texts.negative_text_of_image),
    targetIndices: indices(
      [targets.length],
      targets.map(({ place }) => place),
    ),
    targetIds: indices(
      [targets.length],
      targets.map(({ id }) => id),
    ),
    targetShare: float([], 1 / targets.length),
    share: float([], 1),
  };
}

async function readAll(set: GoldenSet, wanted: (key: string) => boolean): Promise<Map<string, Float32Array>> {
  const keys = [...set.tensors.tensors.keys()].filter(wanted);
  return new Map(await Promise.all(keys.map(async (key) => [key, await set.tensors.readFloat32(key)] as const)));
}

/** The first `count` images of `ln_vision`. */
async function firstImages(set: GoldenSet, count: number) {
  const [, cells = 0, width = 0] = set.tensors.tensors.get("ln_vision")?.shape ?? [];
  const all = await set.tensors.readFloat32("ln_vision");
  return ndarray("float32", [count, cells, width], all.slice(0, count * cells * width));
}
