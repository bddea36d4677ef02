import { Readable } from "node:stream";
import { buffer } from "node:stream/consumers";
import fc from "fast-check";
import { expect, test } from "vitest";
import { LineBuffer } from "../../../src/server/mcp/mcp-server.ts";

test("passes on whole lines only, however the bytes are split", async () => {
  const chunk = fc.array(fc.constantFrom(0x0a, 0x0d, 0x61, 0xc3), { maxLength: 6 }).map((bytes) => Buffer.from(bytes));
  await fc.assert(
    fc.asyncProperty(fc.array(chunk, { maxLength: 12 }), async (chunks) => {
      const all = Buffer.concat(chunks);
      const lines = Readable.from(chunks.filter(({ length }) => length > 0)).pipe(new LineBuffer(1000));
      const pieces: Buffer[] = [];
      for await (const piece of lines) pieces.push(piece);
      expect(Buffer.concat(pieces)).toEqual(all.subarray(0, all.lastIndexOf(0x0a) + 1));
      for (const piece of pieces) expect(piece.at(-1)).toBe(0x0a);
    }),
  );
});

test("a line beyond the limit is an error; many long lines are not", async () => {
  const line = Buffer.from(`${"a".repeat(9)}\n`);
  expect(await buffer(Readable.from([line, line, line]).pipe(new LineBuffer(10)))).toHaveLength(30);
  const tooLong = Readable.from([line, Buffer.from("a".repeat(6)), Buffer.from("a".repeat(6))]).pipe(
    new LineBuffer(10),
  );
  await expect(buffer(tooLong)).rejects.toThrow("longer than 10 bytes");
});
