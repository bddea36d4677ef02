import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, expect, test } from "vitest";
import { readBytes } from "../../src/files/file.ts";

const folder = mkdtempSync(join(tmpdir(), "file-span-"));
afterAll(() => rmSync(folder, { recursive: true, force: true, maxRetries: 3 }));

const path = join(folder, "bytes");
const content = Uint8Array.from({ length: 1000 }, (_, i) => (i * 7) % 251);
writeFileSync(path, content);

test("a whole file, and any stretch of it", async () => {
  expect(new Uint8Array(await readBytes({ path }))).toEqual(content);
  await fc.assert(
    fc.asyncProperty(fc.nat(1000), fc.nat(1000), async (one, other) => {
      const [offset, end] = [Math.min(one, other), Math.max(one, other)];
      const bytes = await readBytes({ path, range: { offset, length: end - offset } });
      expect(bytes).toEqual(content.slice(offset, end));
    }),
  );
});

test("a stretch beyond the end is an error that names file and bytes, not a shorter image", async () => {
  await expect(readBytes({ path, range: { offset: 990, length: 11 } })).rejects.toThrow(
    `${path} ends at byte 1000, but 11 bytes are expected from 990`,
  );
  await expect(readBytes({ path, range: { offset: 5000, length: 1 } })).rejects.toThrow(/ends at byte 5000/);
});

test("a file that is not there is named", async () => {
  const missing = join(folder, "missing");
  await expect(readBytes({ path: missing })).rejects.toThrow(missing);
  await expect(readBytes({ path: missing, range: { offset: 0, length: 1 } })).rejects.toThrow(missing);
});
