import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  argmax,
  distribution,
  logSoftmax,
  penalizeRepetition,
  sampleToken,
  topKIndices,
} from "../../src/generation/sampling.ts";
import { Random } from "../../src/tensor/random.ts";

const scores = fc
  .array(fc.float({ min: -20, max: 20, noNaN: true }), { minLength: 1, maxLength: 40 })
  .map((values) => Float32Array.from(values));

function softmax(values: Float32Array, temperature: number): number[] {
  const max = Math.max(...values);
  const weights = [...values].map((value) => Math.exp((value - max) / temperature));
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  return weights.map((weight) => weight / total);
}

test("topKIndices equals the start of a full sort", () => {
  fc.assert(
    fc.property(scores, fc.nat(45), (values, count) => {
      const expected = [...values].sort((a, b) => b - a).slice(0, count);
      expect(topKIndices(values, count).map((id) => values[id])).toEqual(expected);
    }),
  );
});

test("argmax is the first of equal largest logits", () => {
  expect(argmax(Float32Array.of(1, 3, 3, 2))).toBe(1);
});

test("logSoftmax is normalised and keeps differences", () => {
  fc.assert(
    fc.property(scores, (values) => {
      const logs = logSoftmax(values);
      expect([...logs].reduce((sum, log) => sum + Math.exp(log), 0)).toBeCloseTo(1, 4);
      expect((logs[0] as number) - (logs.at(-1) as number)).toBeCloseTo(
        (values[0] as number) - (values.at(-1) as number),
        3,
      );
    }),
  );
  expect([...logSoftmax(Float32Array.of(1e30, 0))]).toEqual([0, Math.fround(-1e30)]);
});

describe("distribution", () => {
  const options = fc.record({
    temperature: fc.double({ min: 0.1, max: 3, noNaN: true }),
    topK: fc.nat(10),
    topP: fc.double({ min: 0, max: 1, noNaN: true }),
  });

  test("is the smallest set of the most likely tokens with probability topP, among topK, renormalised", () => {
    fc.assert(
      fc.property(scores, options, (values, { temperature, topK, topP }) => {
        const found = distribution(values, { temperature, topK, topP });
        const order = topKIndices(values, topK > 0 ? Math.min(topK, values.length) : values.length);
        expect(found.map(({ id }) => id)).toEqual(order.slice(0, found.length));
        expect(found.reduce((sum, { probability }) => sum + probability, 0)).toBeCloseTo(1, 6);
        const all = softmax(values, temperature);
        const total = order.reduce((sum, id) => sum + (all[id] as number), 0);
        const mass = (count: number) => order.slice(0, count).reduce((sum, id) => sum + (all[id] as number), 0) / total;
        if (found.length < order.length) expect(mass(found.length)).toBeGreaterThanOrEqual(topP - 1e-9);
        if (found.length > 1) expect(mass(found.length - 1)).toBeLessThan(topP + 1e-9);
        found.forEach(({ id, probability }) => {
          expect(probability).toBeCloseTo((all[id] as number) / total / mass(found.length), 6);
        });
      }),
    );
  });
});

describe("sampleToken", () => {
  test("draws tokens with their probability", () => {
    const random = new Random(3);
    const values = [0, 1, 2];
    const counts = [0, 0, 0];
    const draws = 20000;
    for (let i = 0; i < draws; i++) {
      const id = sampleToken(Float32Array.from(values), { temperature: 1.5 }, { random });
      counts[id] = (counts[id] as number) + 1;
    }
    softmax(Float32Array.from(values), 1.5).forEach((probability, id) => {
      expect(Math.abs((counts[id] as number) / draws - probability)).toBeLessThan(0.015);
    });
  });

  test("without temperature takes the most likely token for any seed", () => {
    fc.assert(
      fc.property(scores, fc.nat(), (values, seed) => {
        expect(sampleToken(values.slice(), {}, { random: new Random(seed) })).toBe(argmax(values));
        expect(sampleToken(values.slice(), { temperature: 1, topK: 1 }, { random: new Random(seed) })).toBe(
          argmax(values),
        );
        expect(sampleToken(values.slice(), { temperature: 1, topP: 0 }, { random: new Random(seed) })).toBe(
          argmax(values),
        );
      }),
    );
  });

  test("the same seed gives the same token", () => {
    fc.assert(
      fc.property(scores, fc.nat(), (values, seed) => {
        const draw = () => sampleToken(values.slice(), { temperature: 2 }, { random: new Random(seed) });
        expect(draw()).toBe(draw());
      }),
    );
  });
});

test("repetition penalty makes each previous token less likely once, for either sign", () => {
  const values = Float32Array.of(2, -2, 4, -4);
  penalizeRepetition(values, [0, 1, 0, 0], 2);
  expect([...values]).toEqual([1, -4, 4, -4]);
});

test("draws from all tokens with their probability", () => {
  const random = new Random(3);
  const scores = () => Float32Array.of(0, 1, Number.NEGATIVE_INFINITY, 2);
  const counts = [0, 0, 0, 0];
  const draws = 4000;
  for (let i = 0; i < draws; i++) {
    const id = sampleToken(scores(), { temperature: 0.5 }, { random });
    counts[id] = (counts[id] ?? 0) + 1;
  }
  for (const { id, probability } of distribution(scores(), { temperature: 0.5 })) {
    expect((counts[id] ?? 0) / draws).toBeCloseTo(probability, 1);
  }
  expect(counts[2]).toBe(0);
});
