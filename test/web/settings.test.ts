/** Settings: stored values, and the options of a request. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { bounds, defaults, generationOptions, isSampling, readSeed, readSettings } from "../../web/chat/settings.ts";

test("invalid stored values become the defaults", () => {
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

test("beam search and temperature 0 do not sample", () => {
  const set = { ...defaults, temperature: 0.8, seed: 5 };
  expect(generationOptions(set)).toEqual({
    maxNewTokens: 300,
    repetitionPenalty: 1,
    temperature: 0.8,
    topP: 0.9,
    seed: 5,
  });
  expect(generationOptions({ ...set, numBeams: 4 })).toEqual({ maxNewTokens: 300, repetitionPenalty: 1, numBeams: 4 });
  expect(generationOptions(defaults)).toEqual({ maxNewTokens: 300, repetitionPenalty: 1, temperature: 0 });
  expect(isSampling(set)).toBe(true);
  expect(isSampling({ ...set, numBeams: 2 })).toBe(false);
});

test("without a seed, each answer gets a random one", () => {
  const { seed: first } = generationOptions({ ...defaults, temperature: 1 });
  const { seed: second } = generationOptions({ ...defaults, temperature: 1 });
  expect(readSeed(first)).toBe(first);
  expect(second).not.toBe(first);
});

test("a seed is an unsigned 32-bit integer", () => {
  expect(readSeed(" 12 ")).toBe(12);
  expect(readSeed("4294967295")).toBe(4294967295);
  for (const wrong of ["", "-1", "1.5", "4294967296", "1e3", "x", -1, 0.5, null])
    expect(readSeed(wrong)).toBeUndefined();
});
