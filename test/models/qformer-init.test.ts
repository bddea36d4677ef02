import { join } from "node:path";
import { expect, test } from "vitest";
import { openCheckpoint } from "../../src/formats/open.ts";
import { initialHeads, initialQFormer, type NamedArrays } from "../../src/models/qformer-init.ts";
import { Random } from "../../src/tensor/random.ts";
import { GoldenSet, goldenFolders } from "../helpers/golden-set.ts";

const imageSide = {
  numQueryTokens: 2,
  hiddenSize: 4,
  numHiddenLayers: 2,
  numAttentionHeads: 2,
  intermediateSize: 6,
  encoderWidth: 3,
  crossAttentionFrequency: 2,
  layerNormEps: 1e-12,
};
const both = { ...imageSide, vocabSize: 9, maxPositionEmbeddings: 5 };

const rounded = (values: Iterable<number> | undefined) => Array.from(values ?? [], (value) => value.toFixed(6));

test("the initial values of the image side are stable, with and without a text side", () => {
  const random = new Random(7);
  const alone = initialQFormer(imageSide, random);
  const last = "Qformer.bert.encoder.layer.1.output_query.dense.weight";
  expect(rounded(alone.query_tokens?.data.slice(0, 3))).toEqual(["-0.018527", "-0.033718", "-0.002676"]);
  expect(rounded(alone[last]?.data.slice(-3))).toEqual(["-0.020844", "0.007267", "-0.023014"]);
  expect(random.uint32()).toBe(2598668120);
  const complete = initialQFormer(both, new Random(7));
  expect(Object.keys(complete).length).toBeGreaterThan(Object.keys(alone).length);
  expect(complete).toMatchObject(alone);
});

test("the text side and the heads are initialized as in BERT", () => {
  const config = { ...both, hiddenSize: 48, intermediateSize: 96, vocabSize: 300 };
  const arrays = { ...initialQFormer(config, new Random(1)), ...initialHeads(config, 32, new Random(2)) };
  const { temp, ...others } = arrays;
  expect([temp?.shape, temp?.data[0]]).toEqual([[], Math.fround(0.07)]);
  for (const [name, { data }] of Object.entries(others)) {
    if (name.endsWith("LayerNorm.weight")) expect(new Set(data), name).toEqual(new Set([1]));
    else if (name.endsWith("bias")) expect(new Set(data), name).toEqual(new Set([0]));
    else {
      const deviation = Math.sqrt(data.reduce((sum, value) => sum + value * value, 0) / data.length);
      expect(deviation, name).toBeGreaterThan(0.015);
      expect(deviation, name).toBeLessThan(0.025);
    }
  }
});

test.each(goldenFolders())("names and shapes are those of the released file: %s", async (folder) => {
  const set = await GoldenSet.load(folder);
  const config = set.config().qformer;
  const released = await openCheckpoint(join(folder, "blip2_qformer.pth"));
  if (!config) throw new Error(`${folder} has no Q-Former`);
  const random = new Random(1);
  const heads = initialHeads(config, set.goldens.qformer_pretraining.embed_dim, random);
  // The rest of the file: the encoder's norm, and what says again what other tensors say.
  const others = /^ln_vision\.|\.position_ids$|\.cls\.predictions\.decoder\./;
  const expected = [...released.tensors].filter(([name]) => !others.test(name));
  expect(shapesOf({ ...initialQFormer(config, random), ...heads })).toEqual(
    new Map(expected.map(([name, { shape }]) => [name, shape])),
  );
  await released.close();
  await set.close();
});

function shapesOf(arrays: NamedArrays): Map<string, readonly number[]> {
  return new Map(Object.entries(arrays).map(([name, { shape }]) => [name, shape]));
}
