import fc from "fast-check";
import { expect, test } from "vitest";
import { pack, type Slot } from "../../../src/training/stages/sequences.ts";

const lengthsOf = fc.array(fc.integer({ min: 1, max: 200 }), { minLength: 1, maxLength: 40 });

test("each sequence has places of its own, within a row", () => {
  fc.assert(
    fc.property(lengthsOf, (lengths) => {
      const { slots, rows, length } = pack(lengths);
      const taken = new Set<number>();
      lengths.forEach((own, i) => {
        const { row, start } = slots[i] as Slot;
        expect(row).toBeLessThan(rows);
        expect(start + own).toBeLessThanOrEqual(length);
        for (let place = start; place < start + own; place++) taken.add(row * length + place);
      });
      expect(taken.size).toBe(lengths.reduce((sum, own) => sum + own, 0));
    }),
  );
});

test("no more places than sequences padded to the longest", () => {
  fc.assert(
    fc.property(lengthsOf, (lengths) => {
      const { rows, length } = pack(lengths);
      expect(rows * length).toBeLessThanOrEqual(lengths.length * Math.max(...lengths) * 1.1);
    }),
  );
});

test("captions behind an image leave few places empty", () => {
  const captions = Array.from({ length: 64 }, (_, i) => 33 + 4 + ((i * 7) % 20));
  const { rows, length } = pack(captions);
  expect(rows * length).toBeLessThan(1.05 * captions.reduce((sum, own) => sum + own, 0));
});

test("sequences of one length, one sequence, and none that fits beside another", () => {
  expect(pack([10])).toEqual({ slots: [{ row: 0, start: 0 }], rows: 1, length: 10 });
  const equal = pack(new Array(12).fill(50));
  expect(equal.rows * equal.length).toBe(600);
  expect(pack([100, 1, 1])).toMatchObject({ rows: 1, length: 102 });
});
