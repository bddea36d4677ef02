import fc from "fast-check";
import { expect, test } from "vitest";
import { Mixture, type MixtureState, ShuffledStream } from "../../src/data/sampling.ts";
import { datasetOf } from "../helpers/dataset-in-memory.ts";

/** Datasets of different sizes in these proportions. */
function mixtureOf(ratios: readonly number[], place?: MixtureState): Mixture {
  const parts = ratios.map((ratio, i) => {
    const options = { seed: i, shuffleBuffer: 4 };
    return { stream: new ShuffledStream(datasetOf([i + 2, 3]), options, place?.streams[i]), ratio };
  });
  return new Mixture(parts, place?.behind);
}

const setsOf = async (mixture: Mixture, count: number) => (await mixture.take(count)).map(({ dataset }) => dataset);

test("stage 1 of the paper: 115 of LAION and 14 of Conceptual Captions in every 129", async () => {
  const mixture = mixtureOf([115, 14]);
  for (let round = 0; round < 50; round++) {
    const sets = await setsOf(mixture, 129);
    expect(sets.filter((set) => set === 1)).toHaveLength(14);
    // Evenly: never two in a row, and never ten without one.
    expect(sets.join("")).toMatch(/^0*(10{7,9})+10*$/);
  }
});

/** The largest deviation of any dataset from its proportion, in samples. */
async function furthest(ratios: readonly number[], draws: number): Promise<number> {
  const total = ratios.reduce((sum, ratio) => sum + ratio, 0);
  const counts = ratios.map(() => 0);
  let most = 0;
  for (const [i, set] of (await setsOf(mixtureOf(ratios), draws)).entries()) {
    counts[set] = (counts[set] as number) + 1;
    for (const [j, ratio] of ratios.entries()) {
      most = Math.max(most, Math.abs((counts[j] as number) - ((i + 1) * ratio) / total));
    }
  }
  return most;
}

test.each([
  { most: 3, bound: 1 },
  // With more datasets, two may be due at the same time.
  { most: 6, bound: 1.5 },
])("proportions of up to $most datasets hold at every sample, to within $bound samples", async ({ most, bound }) => {
  const ratios = fc.array(fc.integer({ min: 1, max: 1000 }), { minLength: 1, maxLength: most });
  await fc.assert(
    fc.asyncProperty(ratios, async (some) => {
      expect(await furthest(some, 400)).toBeLessThan(bound + 1e-9);
    }),
  );
});

test("resumes from any position", async () => {
  const ratio = fc.double({ min: 0.01, max: 100, noNaN: true });
  await fc.assert(
    fc.asyncProperty(fc.array(ratio, { minLength: 1, maxLength: 4 }), fc.nat(60), async (ratios, place) => {
      const mixture = mixtureOf(ratios);
      await mixture.take(place);
      const state: MixtureState = JSON.parse(JSON.stringify(mixture.save()));
      const rest = await mixture.take(30);
      const again = await mixtureOf(ratios, state).take(30);
      const named = (draws: typeof rest) => draws.map(({ pair, dataset }) => [dataset, pair.name]);
      expect(named(again)).toEqual(named(rest));
    }),
  );
});

test("a saved state does not change when more is taken", async () => {
  const mixture = mixtureOf([2, 3]);
  await mixture.take(3);
  const state = mixture.save();
  const text = JSON.stringify(state);
  await mixture.take(5);
  expect(JSON.stringify(state)).toBe(text);
});

test("a sample names its dataset; an empty mixture is an error", async () => {
  const draws = await mixtureOf([1, 1]).take(10);
  const sizes = (set: number) => new Set(draws.filter(({ dataset }) => dataset === set).map(({ pair }) => pair.name));
  expect([sizes(0).size, sizes(1).size]).toEqual([5, 5]);
  expect(() => new Mixture([])).toThrow(/at least one dataset/);
});
