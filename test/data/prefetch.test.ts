import { expect, test } from "vitest";
import { Prefetcher } from "../../src/data/sampling.ts";

/** Promises that a test fulfils when it wants to. */
function controlled() {
  const begun: number[] = [];
  const ends: (() => void)[] = [];
  let next = 0;
  return {
    begun,
    end: (i: number) => ends[i]?.(),
    plan: async () => next++,
    load: (i: number) =>
      new Promise<number>((resolve) => {
        begun.push(i);
        ends[i] = () => resolve(i);
      }),
  };
}

const settled = () => new Promise((resolve) => setImmediate(resolve));

test("results are in order, however long each takes", async () => {
  const { begun, end, plan, load } = controlled();
  const prefetcher = new Prefetcher(plan, load, 2);
  const first = prefetcher.next();
  await settled();
  expect(begun).toEqual([0, 1, 2]);
  end(2);
  end(1);
  end(0);
  expect(await first).toBe(0);
  expect(await prefetcher.next()).toBe(1);
  expect(await prefetcher.next()).toBe(2);
});

test.each([0, 1, 3])("loads %d results ahead", async (ahead) => {
  const { begun, end, plan, load } = controlled();
  const prefetcher = new Prefetcher(plan, load, ahead);
  for (let i = 0; i < 4; i++) {
    const result = prefetcher.next();
    await settled();
    expect(begun).toHaveLength(i + 1 + ahead);
    end(i);
    expect(await result).toBe(i);
    await settled();
    expect(begun).toHaveLength(i + 1 + ahead);
  }
});

test("plans are made one after the other", async () => {
  let [planned, atOnce, most] = [0, 0, 0];
  const plan = async () => {
    most = Math.max(most, ++atOnce);
    await settled();
    atOnce--;
    return planned++;
  };
  const prefetcher = new Prefetcher(plan, async (i) => i, 5);
  expect([await prefetcher.next(), await prefetcher.next(), most]).toEqual([0, 1, 1]);
});

test("a failed load rejects its own result only", async () => {
  let next = 0;
  const load = async (i: number) => {
    if (i === 1) throw new Error("the second");
    return i;
  };
  const prefetcher = new Prefetcher(async () => next++, load, 3);
  expect(await prefetcher.next()).toBe(0);
  // Long enough for an unhandled rejection to be noticed.
  await settled();
  await expect(prefetcher.next()).rejects.toThrow("the second");
  expect(await prefetcher.next()).toBe(2);
  expect(await prefetcher.next()).toBe(3);
});

test("no plan follows a failed one, since the position is unknown", async () => {
  let next = 0;
  const plan = async () => {
    if (next === 1) throw new Error("no data");
    return next++;
  };
  const prefetcher = new Prefetcher(plan, async (i) => i, 2);
  expect(await prefetcher.next()).toBe(0);
  await settled();
  await expect(prefetcher.next()).rejects.toThrow("no data");
  await expect(prefetcher.next()).rejects.toThrow("no data");
});
