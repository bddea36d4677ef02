/** Damaged files of every format: each opens or says why not, and neither hangs, crashes nor takes memory without bound. */
import { readFileSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import fc from "fast-check";
import { expect, test } from "vitest";
import { openCheckpoint } from "../../src/formats/open.ts";
import { fixture, golden, temporaryFolder } from "../helpers/weight-files.ts";

const folder = temporaryFolder();
const files = [
  fixture("views.safetensors"),
  fixture("views.pth"),
  fixture("views-legacy.pth"),
  fixture("views-protocol4.pth"),
  fixture("blocks.gguf"),
  fixture("quantised.gguf"),
  golden("mha/minigpt4.pth"),
  golden("mha/minigpt4-legacy.pth"),
].map((path) => ({ name: basename(path), bytes: readFileSync(path) }));

/** Opens the file and reads every tensor. */
async function tryToRead(path: string): Promise<void> {
  try {
    const checkpoint = await openCheckpoint(path);
    try {
      for (const name of checkpoint.tensors.keys()) await checkpoint.readFloat32(name);
    } finally {
      await checkpoint.close();
    }
  } catch (error) {
    expect(error).toBeInstanceOf(Error);
    expect((error as Error).message).toContain(path);
  }
}

test.each(files)("$name, cut short", { timeout: 30_000 }, async ({ bytes }) => {
  const path = join(folder, "cut");
  await fc.assert(
    fc.asyncProperty(fc.integer({ min: 0, max: bytes.length - 1 }), async (length) => {
      writeFileSync(path, bytes.subarray(0, length));
      await tryToRead(path);
    }),
  );
});

test.each(files)("$name, with bytes changed", { timeout: 30_000 }, async ({ bytes }) => {
  const path = join(folder, "changed");
  // Most of a large file is tensor data; headers lie at the ends.
  const near = Math.min(2000, bytes.length);
  const position = fc.oneof(
    fc.nat(near - 1),
    fc.nat(near - 1).map((back) => bytes.length - 1 - back),
  );
  const changes = fc.array(fc.tuple(position, fc.oneof(fc.nat(255), fc.constantFrom(0, 0x7f, 0xff))), {
    minLength: 1,
    maxLength: 8,
  });
  await fc.assert(
    fc.asyncProperty(changes, async (list) => {
      const damaged = Uint8Array.from(bytes);
      for (const [at, byte] of list) damaged[at] = byte;
      writeFileSync(path, damaged);
      const before = process.memoryUsage().rss;
      await tryToRead(path);
      expect(process.memoryUsage().rss - before).toBeLessThan(512 * 2 ** 20);
    }),
    { numRuns: 200 },
  );
});
