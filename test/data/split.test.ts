import fc from "fast-check";
import { expect, test } from "vitest";
import { holdOut, listPairs } from "../../src/data/dataset.ts";
import { datasetOf, pairOf, partOf } from "../helpers/dataset-in-memory.ts";

const names = (pairs: readonly { readonly name: string }[]) => pairs.map(({ name }) => name);

test("what is held out and what is left are all pairs, and share none", async () => {
  const sizes = fc.tuple(fc.array(fc.nat(5), { maxLength: 4 }), fc.integer({ min: 1, max: 12 }));
  await fc.assert(
    fc.asyncProperty(sizes, fc.nat(11), async ([others, last], wanted) => {
      const dataset = datasetOf([...others, last]);
      const count = Math.min(wanted, last - 1);
      const { train, heldOut } = await holdOut(dataset, count);
      expect(heldOut).toHaveLength(count);
      const left = names(await listPairs(train));
      expect([...left, ...names(heldOut)].sort()).toEqual(names(await listPairs(dataset)).sort());
    }),
  );
});

test("the last ones by name are held out, however the part lists them", async () => {
  const shuffled = ["c", "a", "d", "b"].map(pairOf);
  const problems = [{ name: "e", reason: "has no text" }];
  const dataset = {
    layout: "memory",
    parts: [partOf("z", 2), { path: "last", read: async () => ({ pairs: shuffled, problems }) }],
  };
  const { train, heldOut } = await holdOut(dataset, 2);
  expect(names(heldOut)).toEqual(["c", "d"]);
  expect(names(await listPairs(train))).toEqual(["z/0", "z/1", "a", "b"]);
  expect(await train.parts[1]?.read()).toMatchObject({ problems });
  const twice = await holdOut(train, 1);
  expect([names(twice.heldOut), names(await listPairs(twice.train))]).toEqual([["b"], ["z/0", "z/1", "a"]]);
});

test("nothing can be held out of nothing; a part cannot be held out as a whole", async () => {
  expect(await holdOut(datasetOf([]), 3)).toMatchObject({ heldOut: [] });
  const dataset = datasetOf([5, 3]);
  expect(await holdOut(dataset, 0)).toEqual({ train: dataset, heldOut: [] });
  await expect(holdOut(dataset, 3)).rejects.toThrow("part1 lists 3 images, so 3 cannot be held out of it");
});
