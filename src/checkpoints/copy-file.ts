/** Large files copied, with their SHA-256. */
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import type { WrittenFile } from "./journal.ts";
import type { WriteOptions } from "./safetensors-stream.ts";
import { writeWhole } from "./whole-file.ts";

/** Copies a file, beside `to` first and then renamed. */
export async function copyWhole(
  from: string,
  to: string,
  { signal, onBytes }: WriteOptions = {},
): Promise<WrittenFile> {
  const hash = createHash("sha256");
  let bytes = 0;
  await writeWhole(to, async (file) => {
    for await (const chunk of createReadStream(from, { highWaterMark: 2 ** 22, signal }) as AsyncIterable<Uint8Array>) {
      await file.writeFile(chunk);
      hash.update(chunk);
      bytes += chunk.length;
      onBytes?.(chunk.length);
    }
  });
  return { bytes, sha256: hash.digest("hex") };
}
