import fc from "fast-check";
import { expect, test } from "vitest";
import { Random } from "../../src/tensor/random.ts";
import { type Packing, pack } from "../../src/training/packing.ts";

const lengthsOf = fc.array(fc.integer({ min: 1, max: 300 }), { minLength: 1, maxLength: 80 });

/** Share of the places that nothing is in. */
function padding(lengths: readonly number[], { rows, length }: Packing): number {
  return 1 - lengths.reduce((sum, one) => sum + one, 0) / (rows * length);
}

test("each sequence has places of its own in a row", () => {
  fc.assert(
    fc.property(lengthsOf, (lengths) => {
      const { slots, rows, length } = pack(lengths);
      expect(slots).toHaveLength(lengths.length);
      const taken = new Uint8Array(rows * length);
      slots.forEach(({ row, start }, i) => {
        const end = start + (lengths[i] as number);
        expect(row < rows && start >= 0 && end <= length).toBe(true);
        for (let place = start; place < end; place++)
          taken[row * length + place] = (taken[row * length + place] as number) + 1;
      });
      expect(Math.max(...taken)).toBe(1);
      expect(taken.reduce((sum, times) => sum + times, 0)).toBe(lengths.reduce((sum, one) => sum + one, 0));
      for (let row = 0; row < rows; row++) expect(taken[row * length]).toBe(1);
    }),
  );
});

test("it never takes more places than one sequence a row", () => {
  fc.assert(
    fc.property(lengthsOf, (lengths) => {
      const { rows, length } = pack(lengths);
      expect(rows * length).toBeLessThanOrEqual(lengths.length * Math.max(...lengths));
    }),
  );
});

test("the same lengths are packed in the same way", () => {
  fc.assert(
    fc.property(lengthsOf, (lengths) => {
      expect(pack(lengths)).toEqual(pack([...lengths]));
    }),
  );
});

test.each([
  { samples: 64, most: 0.08 },
  { samples: 16, most: 0.15 },
])("captions of stage 1, $samples of them, waste little", ({ samples, most }) => {
  let without = 0;
  for (let seed = 0; seed < 100; seed++) {
    const random = new Random(seed);
    // A picture of 32 tokens and the beginning, then a caption that is cut at 32.
    const lengths = Array.from(
      { length: samples },
      () => 33 + Math.round(Math.min(32, Math.max(2, 12 + 5 * random.normal()))),
    );
    expect(padding(lengths, pack(lengths))).toBeLessThan(most);
    without += padding(lengths, { slots: [], rows: samples, length: Math.max(...lengths) }) / 100;
  }
  expect(without).toBeGreaterThan(0.15);
});

test("equal lengths need no padding", () => {
  for (const count of [1, 2, 7, 64]) expect(padding(Array(count).fill(40), pack(Array(count).fill(40)))).toBe(0);
});
