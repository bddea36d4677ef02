/** Settings of answers, as they are kept and as a model takes them. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { bounds, decodingOf, defaults, draws, readSeed, readSettings } from "../../web/chat/settings.ts";

test("what was kept is taken where it is valid; the rest is as it is by default", () => {
  expect(readSettings(undefined)).toEqual(defaults);
  expect(readSettings({ temperature: 0.7, topP: 9, numBeams: "4", system: "Be brief.", seed: 7, other: 1 })).toEqual({
    ...defaults,
    temperature: 0.7,
    system: "Be brief.",
    seed: 7,
  });
});

test("settings are always within their bounds", () => {
  fc.assert(
    fc.property(fc.anything(), fc.record({ temperature: fc.double(), maxNewTokens: fc.double() }), (any, record) => {
      for (const kept of [any, record]) {
        const read = readSettings(kept);
        for (const [name, { min, max }] of Object.entries(bounds)) {
          const value = read[name as keyof typeof bounds];
          expect(value >= min && value <= max).toBe(true);
        }
      }
    }),
  );
});

test("with beams, or at temperature 0, nothing is drawn", () => {
  const set = { ...defaults, temperature: 0.8, seed: 5 };
  expect(decodingOf(set)).toEqual({ maxNewTokens: 300, repetitionPenalty: 1, temperature: 0.8, topP: 0.9, seed: 5 });
  expect(decodingOf({ ...set, numBeams: 4 })).toEqual({ maxNewTokens: 300, repetitionPenalty: 1, numBeams: 4 });
  expect(decodingOf(defaults)).toEqual({ maxNewTokens: 300, repetitionPenalty: 1, temperature: 0 });
  expect(draws(set)).toBe(true);
  expect(draws({ ...set, numBeams: 2 })).toBe(false);
});

test("without a seed, each answer draws one", () => {
  const { seed: first } = decodingOf({ ...defaults, temperature: 1 });
  const { seed: second } = decodingOf({ ...defaults, temperature: 1 });
  expect(readSeed(first)).toBe(first);
  expect(second).not.toBe(first);
});

test("a seed is a whole number of 32 bits", () => {
  expect(readSeed(" 12 ")).toBe(12);
  expect(readSeed("4294967295")).toBe(4294967295);
  for (const wrong of ["", "-1", "1.5", "4294967296", "1e3", "x", -1, 0.5, null])
    expect(readSeed(wrong)).toBeUndefined();
});
