import { createHash } from "node:crypto";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { expect, test } from "vitest";
import { PartsWriter } from "../../src/convert/export-web.ts";

test("files of limited size contain all bytes in order, at the returned offsets", async () => {
  const pieces = fc.array(fc.uint8Array({ maxLength: 40 }), { maxLength: 8 });
  await fc.assert(
    fc.asyncProperty(pieces, fc.integer({ min: 1, max: 50 }), fc.constantFrom(1, 16), async (all, largest, step) => {
      const folder = await mkdtemp(join(tmpdir(), "parts-"));
      const writer = new PartsWriter(folder, "w", largest);
      const offsets: number[] = [];
      for (const piece of all) offsets.push(await writer.append(piece, step));
      const parts = await writer.end();
      const contents = await Promise.all(parts.map(({ name }) => readFile(join(folder, name))));
      parts.forEach(({ name, bytes, sha256 }, i) => {
        const content = contents[i] as Buffer;
        expect({ name, bytes }).toEqual({ name: `w-${i}.bin`, bytes: content.length });
        expect(bytes === largest || i === parts.length - 1).toBe(true);
        expect(sha256).toBe(createHash("sha256").update(content).digest("hex"));
      });
      const joined = Buffer.concat(contents);
      all.forEach((piece, i) => {
        const offset = offsets[i] as number;
        expect(offset % step).toBe(0);
        expect(joined.subarray(offset, offset + piece.length)).toEqual(Buffer.from(piece));
      });
      await rm(folder, { recursive: true });
    }),
    { numRuns: 50 },
  );
});
