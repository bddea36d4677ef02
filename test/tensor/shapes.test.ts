import fc from "fast-check";
import { expect, test } from "vitest";
import {
  addDims,
  broadcastShapes,
  type Dim,
  evaluateDim,
  isDimName,
  mulDims,
  productOf,
  sameShape,
  subDims,
} from "../../src/tensor/shapes.ts";

const sizes = new Map([
  ["batch", 3],
  ["sequence", 7],
  ["past", 2],
]);
const number = (dim: Dim) => evaluateDim(dim, sizes);

/** Numbers, names, and sums, differences and products of them. */
const dims: fc.Arbitrary<Dim> = fc.letrec<{ dim: Dim }>((tie) => ({
  dim: fc.oneof(
    { maxDepth: 3 },
    fc.integer({ min: 0, max: 5 }),
    fc.constantFrom(...sizes.keys()),
    fc.tuple(tie("dim"), tie("dim")).map(([a, b]) => addDims(a, b)),
    fc.tuple(tie("dim"), tie("dim")).map(([a, b]) => mulDims(a, b)),
    fc.tuple(tie("dim"), tie("dim")).map(([a, b]) => subDims(a, b)),
  ),
})).dim;

test("symbolic arithmetic agrees with arithmetic on numbers", () => {
  fc.assert(
    fc.property(dims, dims, (a, b) => {
      expect(number(addDims(a, b))).toBe(number(a) + number(b));
      expect(number(mulDims(a, b))).toBe(number(a) * number(b) || 0);
      expect(number(subDims(a, b))).toBe(number(a) - number(b));
    }),
    { numRuns: 1000 },
  );
});

test("equal sizes have the same canonical form", () => {
  fc.assert(
    fc.property(dims, dims, dims, (a, b, c) => {
      expect(addDims(a, b)).toBe(addDims(b, a));
      expect(mulDims(a, b)).toBe(mulDims(b, a));
      expect(mulDims(a, addDims(b, c))).toBe(addDims(mulDims(a, b), mulDims(a, c)));
      expect(addDims(addDims(a, b), c)).toBe(addDims(a, addDims(b, c)));
      expect(subDims(addDims(a, b), b)).toBe(a);
      expect(subDims(a, a)).toBe(0);
    }),
    { numRuns: 1000 },
  );
  expect(mulDims("sequence", mulDims(2, "batch"))).toBe("2*batch*sequence");
  expect(productOf(["batch", 4, "sequence"])).toBe("4*batch*sequence");
});

test("shapes broadcast as in NumPy", () => {
  expect(broadcastShapes(["batch", 1, 4], [3, 1])).toEqual(["batch", 3, 4]);
  expect(broadcastShapes([], ["batch"])).toEqual(["batch"]);
  expect(broadcastShapes(["batch", 4], ["sequence", 4])).toBeUndefined();
  expect(broadcastShapes([2], [3])).toBeUndefined();
  expect(sameShape(["batch", 2], ["batch", 2])).toBe(true);
  expect(sameShape(["batch"], ["batch", 1])).toBe(false);
});

test("an unbound size is an error that names it", () => {
  expect(() => evaluateDim("2*heads", sizes)).toThrow('The size "heads" is not bound by any input');
  expect(["batch", "_x1", "2x", "a b", ""].map(isDimName)).toEqual([true, true, false, false, false]);
});
