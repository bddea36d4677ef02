import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import fc from "fast-check";
import { afterAll, expect, test } from "vitest";
import { FeatureCache, imageId, listCaches, removeStaleCaches } from "../../src/data/feature-cache.ts";

const root = mkdtempSync(join(tmpdir(), "feature-cache-"));
afterAll(() => rmSync(root, { recursive: true, force: true, maxRetries: 3 }));

const shape = [2, 3];
const headerBytes = 48;
const recordBytes = 32 + 8 + 12;
const newFolder = () => mkdtempSync(join(root, "c"));
const request = (folder: string, key = "encoder") => ({ folder, key, shape });
const id = (i: number) => imageId(Uint8Array.of(i));
const row = (i: number) => Float32Array.from({ length: 6 }, (_, j) => i + j / 8);

/** Path of the only segment below `folder`. */
function segmentOf(folder: string): string {
  const [path = "", ...others] = readdirSync(folder, { recursive: true, encoding: "utf8" }).filter((name) =>
    name.endsWith(".rows"),
  );
  expect(others).toEqual([]);
  return join(folder, path);
}

async function read(cache: FeatureCache, id: string, length = 6): Promise<number[] | undefined> {
  const out = new Float32Array(length);
  return (await cache.read(id, out)) ? [...out] : undefined;
}

/** A cache of `count` rows, closed; its folder. */
async function filled(count: number): Promise<string> {
  const folder = newFolder();
  const cache = await FeatureCache.open(request(folder));
  for (let i = 0; i < count; i++) await cache.write(id(i), row(i));
  await cache.close();
  return folder;
}

test("rows persist, rounded to float16", async () => {
  const folder = newFolder();
  const float16 = fc.float({ min: -65504, max: 65504, noNaN: true });
  await fc.assert(
    fc.asyncProperty(
      fc.uint8Array({ minLength: 32, maxLength: 32 }),
      fc.array(float16, { minLength: 6, maxLength: 6 }),
      async (bytes, values) => {
        const key = Buffer.from(bytes).toString("hex");
        const writer = await FeatureCache.open(request(folder, key));
        await writer.write(key, Float32Array.from(values));
        const reader = await FeatureCache.open(request(folder, key));
        for (const cache of [writer, reader]) {
          expect([cache.size, cache.has(key), cache.has(id(0))]).toEqual([1, true, false]);
          const found = (await read(cache, key)) ?? [];
          // Half a unit in the last of 11 bits; below 2^-14 the unit is 2^-24.
          for (const [i, value] of values.entries()) {
            expect(Math.abs((found[i] as number) - value)).toBeLessThanOrEqual(
              Math.max(Math.abs(value), 2 ** -14) / 2048,
            );
          }
          await cache.close();
        }
      },
    ),
    { numRuns: 25 },
  );
});

test("concurrent writes and reads keep rows apart", async () => {
  const folder = newFolder();
  const cache = await FeatureCache.open(request(folder));
  const all = Array.from({ length: 200 }, (_, i) => i);
  await Promise.all(all.map((i) => cache.write(id(i), row(i))));
  const again = await FeatureCache.open(request(folder));
  expect(await Promise.all(all.map((i) => read(again, id(i))))).toEqual(all.map((i) => [...row(i)]));
  await cache.close();
  await again.close();
});

test("rows are never read with another key or shape", async () => {
  const folder = await filled(3);
  const other = await FeatureCache.open(request(folder, "another encoder"));
  const flat = await FeatureCache.open({ ...request(folder), shape: [6] });
  for (const cache of [other, flat]) {
    expect([cache.size, cache.has(id(0)), await read(cache, id(0))]).toEqual([0, false, undefined]);
  }
  // Nor if a segment of one comes into the folder of the other.
  await other.write(id(7), row(7));
  await other.close();
  await flat.close();
  const [mine = ""] = (await listCaches(folder)).filter(({ rows }) => rows === 3).map(({ path }) => path);
  const [theirs = ""] = (await listCaches(folder)).filter(({ rows }) => rows === 1).map(({ path }) => path);
  cpSync(segmentOf(theirs), join(mine, "stray.rows"));
  writeFileSync(join(mine, "no.rows"), "something else that is longer than the header of a segment is");
  const problems: string[] = [];
  const cache = await FeatureCache.open(request(folder), (message) => problems.push(message));
  expect([cache.size, cache.has(id(7))]).toEqual([3, false]);
  expect(problems).toEqual([
    expect.stringMatching(/no\.rows does not belong to this cache/),
    expect.stringMatching(/stray\.rows does not belong to this cache/),
  ]);
  await cache.close();
});

test("a truncated segment loses only its last rows, and is never appended to", async () => {
  const whole = await filled(4);
  const size = headerBytes + 4 * recordBytes;
  expect(readFileSync(segmentOf(whole))).toHaveLength(size);
  for (let length = 0; length <= size; length++) {
    // Each byte of header and last record; of the others, some.
    if (length > headerBytes && length < size - recordBytes && length % 7 > 0) continue;
    const folder = newFolder();
    cpSync(whole, folder, { recursive: true });
    const segment = segmentOf(folder);
    truncateSync(segment, length);
    const problems: string[] = [];
    const cache = await FeatureCache.open(request(folder), (message) => problems.push(message));
    const left = Math.max(0, Math.floor((length - headerBytes) / recordBytes));
    expect(cache.size).toBe(left);
    for (let i = 0; i < left; i++) expect(await read(cache, id(i))).toEqual([...row(i)]);
    expect(await read(cache, id(3))).toEqual(left === 4 ? [...row(3)] : undefined);
    await cache.write(id(9), row(9));
    await cache.close();
    expect(readFileSync(segment)).toHaveLength(length);
    const again = await FeatureCache.open(request(folder), (message) => problems.push(message));
    expect([again.size, await read(again, id(9)), problems]).toEqual([left + 1, [...row(9)], []]);
    await again.close();
  }
});

test("a row with a flipped bit is not read until it is written again", async () => {
  const folder = await filled(3);
  const segment = segmentOf(folder);
  const whole = readFileSync(segment);
  await fc.assert(
    fc.asyncProperty(fc.nat(recordBytes - 1), fc.nat(7), async (byte, bit) => {
      const damaged = Buffer.from(whole);
      const at = headerBytes + recordBytes + byte;
      damaged[at] = (damaged[at] as number) ^ (1 << bit);
      writeFileSync(segment, damaged);
      const problems: string[] = [];
      const cache = await FeatureCache.open(request(folder), (message) => problems.push(message));
      expect(await read(cache, id(1))).toBe(undefined);
      // A corrupted id is another image's; a corrupted row is reported.
      expect(problems).toEqual(byte < 32 ? [] : [expect.stringContaining(id(1))]);
      expect([cache.has(id(1)), await read(cache, id(0)), await read(cache, id(2))]).toEqual([
        false,
        [...row(0)],
        [...row(2)],
      ]);
      await cache.write(id(1), row(1));
      expect(await read(cache, id(1))).toEqual([...row(1)]);
      await cache.close();
      const again = await FeatureCache.open(request(folder));
      expect(await read(again, id(1))).toEqual([...row(1)]);
      await again.close();
      for (const path of readdirSync(folder, { recursive: true, encoding: "utf8" })) {
        if (path.endsWith(".rows") && join(folder, path) !== segment) rmSync(join(folder, path));
      }
    }),
    { numRuns: 40 },
  );
});

test("two instances write concurrently without interfering", async () => {
  const folder = newFolder();
  const [first, second] = [await FeatureCache.open(request(folder)), await FeatureCache.open(request(folder))];
  const write = async (cache: FeatureCache, from: number, to: number) => {
    for (let i = from; i < to; i++) await cache.write(id(i), row(i));
  };
  await Promise.all([write(first, 0, 60), write(second, 40, 100)]);
  expect([first.size, second.size]).toEqual([60, 60]);
  await first.close();
  await second.close();
  const cache = await FeatureCache.open(request(folder));
  expect(cache.size).toBe(100);
  for (let i = 0; i < 100; i++) expect(await read(cache, id(i))).toEqual([...row(i)]);
  await cache.close();
  expect(await listCaches(folder)).toMatchObject([{ rows: 120 }]);
});

test("a killed process leaves all rows that it completed", async () => {
  const folder = newFolder();
  const big = { folder, key: "killed", shape: [100_000] };
  const program = `
    import { FeatureCache, imageId } from ${JSON.stringify(new URL("../../src/data/feature-cache.ts", import.meta.url).href)};
    const cache = await FeatureCache.open(${JSON.stringify(big)});
    for (let i = 0; i < 200; i++) {
      await cache.write(imageId(Uint8Array.of(i)), new Float32Array(100_000).fill(i));
      console.log(i);
    }`;
  const child = spawn(process.execPath, ["--import", "tsx", "--input-type=module", "-e", program], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const ended = new Promise((resolve) => child.on("close", (_, signal) => resolve(signal)));
  let completed = 0;
  for await (const line of createInterface(child.stdout)) {
    completed = Number(line) + 1;
    if (completed === 20) child.kill("SIGKILL");
  }
  expect(await ended).toBe("SIGKILL");
  expect(completed).toBeLessThan(200);
  const problems: string[] = [];
  const cache = await FeatureCache.open(big, (message) => problems.push(message));
  expect(cache.size).toBeGreaterThanOrEqual(completed);
  for (let i = 0; i < cache.size; i++) {
    expect(new Set(await read(cache, id(i), 100_000))).toEqual(new Set([i]));
  }
  expect(problems).toEqual([]);
  await cache.close();
}, 30_000);

test("refuses values outside of float16 and rows of another length, naming the image", async () => {
  const folder = newFolder();
  const cache = await FeatureCache.open(request(folder));
  for (const value of [Number.NaN, Number.POSITIVE_INFINITY, -1e6]) {
    const bad = row(1);
    bad[4] = value;
    await expect(cache.write(id(1), bad)).rejects.toThrow(`image ${id(1)}: value 4 is ${value}`);
  }
  await expect(cache.write(id(1), new Float32Array(5))).rejects.toThrow("expected 6 values, found 5");
  await expect(cache.read(id(1), new Float32Array(5))).rejects.toThrow("expected 6 values, found 5");
  await expect(cache.write("image", row(1))).rejects.toThrow('"image" is not a SHA-256');
  await cache.write(id(2), row(2));
  expect([cache.size, cache.has(id(1)), await read(cache, id(2))]).toEqual([1, false, [...row(2)]]);
  await cache.close();
});

test("reading creates no segment", async () => {
  const folder = await filled(0);
  expect(readdirSync(folder, { recursive: true, encoding: "utf8" }).filter((name) => name.endsWith(".rows"))).toEqual(
    [],
  );
});

test("lists keys, rows and bytes, and removes only stale keys", async () => {
  const folder = await filled(3);
  const other = await FeatureCache.open(request(folder, "old"));
  await other.write(id(0), row(0));
  await other.close();
  writeFileSync(join(folder, "notes.txt"), "mine");
  const photos = mkdtempSync(join(folder, "photos"));
  const bytes = (rows: number) => headerBytes + rows * recordBytes;
  const status = await listCaches(folder);
  expect(status.map(({ key, rows, bytes }) => ({ key, rows, bytes })).sort((a, b) => b.rows - a.rows)).toEqual([
    { key: "encoder", rows: 3, bytes: bytes(3) },
    { key: "old", rows: 1, bytes: bytes(1) },
  ]);
  expect(await removeStaleCaches(folder, ["encoder"])).toMatchObject([{ key: "old", rows: 1 }]);
  expect(await listCaches(folder)).toMatchObject([{ key: "encoder", rows: 3 }]);
  expect(readdirSync(folder).sort()).toHaveLength(3);
  expect(readdirSync(photos)).toEqual([]);
  expect(await listCaches(join(folder, "missing"))).toEqual([]);
});

test("an image's id is the SHA-256 of its bytes; each view has its own id", () => {
  const bytes = Uint8Array.of(1, 2, 3);
  expect(imageId(bytes)).toBe(createHash("sha256").update(bytes).digest("hex"));
  const ids = [imageId(bytes), imageId(bytes, "flip"), imageId(bytes, "crop"), imageId(bytes, "")];
  expect(new Set(ids).size).toBe(4);
  expect(imageId(bytes, "flip")).toBe(imageId(Uint8Array.of(1, 2, 3), "flip"));
  expect(imageId(Uint8Array.of(1, 2), "flip")).not.toBe(imageId(bytes, "flip"));
});
