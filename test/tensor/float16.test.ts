import fc from "fast-check";
import { expect, test } from "vitest";
import { bfloat16ToFloat32, float16ToFloat32, float32ToFloat16 } from "../../src/tensor/float16.ts";

const allBits = Uint16Array.from({ length: 65536 }, (_, bits) => bits);

test("every float16 survives a round trip through float32", () => {
  const values = float16ToFloat32(allBits);
  const back = float32ToFloat16(values);
  const changed = [...allBits].filter((bits) => back[bits] !== bits && !Number.isNaN(values[bits]));
  expect(changed).toEqual([]);
  expect([0x3c00, 0xc000, 0x7bff, 0x0001, 0x7c00].map((bits) => values[bits])).toEqual([
    1,
    -2,
    65504,
    2 ** -24,
    Number.POSITIVE_INFINITY,
  ]);
  expect(values[0x7e00]).toBeNaN();
  expect(Object.is(values[0x8000], -0)).toBe(true);
});

test("float32 is rounded to the nearest float16, ties to even", () => {
  const values = float16ToFloat32(allBits);
  fc.assert(
    fc.property(fc.float({ min: -65000, max: 65000, noNaN: true }), (value) => {
      const [bits = 0] = float32ToFloat16(Float32Array.of(value));
      const distance = (other: number) => Math.abs((values[other] as number) - value);
      for (const neighbour of [bits - 1, bits + 1]) {
        if (!Number.isFinite(values[neighbour])) continue;
        expect(distance(bits)).toBeLessThanOrEqual(distance(neighbour));
        if (distance(bits) === distance(neighbour) && values[bits] !== values[neighbour]) expect(bits & 1).toBe(0);
      }
    }),
    { numRuns: 2000 },
  );
  expect([...float32ToFloat16(Float32Array.of(65519, 65520, -1e30, Number.NaN))]).toEqual([
    0x7bff, 0x7c00, 0xfc00, 0x7e00,
  ]);
});

test("bfloat16 is the upper half of a float32", () => {
  expect([...bfloat16ToFloat32(Uint16Array.of(0x3f80, 0xc040, 0x0000))]).toEqual([1, -3, 0]);
});
