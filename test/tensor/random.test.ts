import fc from "fast-check";
import { expect, test } from "vitest";
import { Random } from "../../src/tensor/random.ts";

const take = (random: Random, count: number) => Array.from({ length: count }, () => random.uint32());

test("a seed determines the sequence", () => {
  expect(take(new Random(7), 5)).toEqual(take(new Random(7), 5));
  const seeds = [0, 1, 2, 2 ** 32, 2 ** 40 + 1];
  expect(new Set(seeds.map((seed) => take(new Random(seed), 2).join())).size).toBe(seeds.length);
});

test("a restored state continues the sequence", () => {
  fc.assert(
    fc.property(fc.nat(), fc.nat(20), (seed, before) => {
      const random = new Random(seed);
      take(random, before);
      const saved = JSON.parse(JSON.stringify(random.save()));
      expect(take(Random.from(saved), 8)).toEqual(take(random, 8));
    }),
  );
});

test("the distributions have the expected moments", () => {
  const random = new Random(1);
  const count = 20000;
  const mean = (values: number[]) => values.reduce((sum, value) => sum + value, 0) / count;
  const uniform = Array.from({ length: count }, () => random.uniform());
  expect(Math.min(...uniform)).toBeGreaterThanOrEqual(0);
  expect(Math.max(...uniform)).toBeLessThan(1);
  expect(mean(uniform)).toBeCloseTo(0.5, 1);
  const normal = Array.from({ length: count }, () => random.normal());
  expect(Math.abs(mean(normal))).toBeLessThan(0.03);
  expect(Math.abs(mean(normal.map((value) => value * value)) - 1)).toBeLessThan(0.05);
});

test("shuffle keeps all items and reaches every order", () => {
  const random = new Random(2);
  const orders = new Set(Array.from({ length: 200 }, () => random.shuffle([1, 2, 3]).join()));
  expect([...orders].sort()).toEqual(["1,2,3", "1,3,2", "2,1,3", "2,3,1", "3,1,2", "3,2,1"]);
  expect(Array.from({ length: 50 }, () => random.below(3)).every((i) => [0, 1, 2].includes(i))).toBe(true);
});
