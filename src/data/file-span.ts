/** Bytes in a file: all of it, or a stretch of it, as a picture inside a tar is. */
import { open, readFile } from "node:fs/promises";

export interface FileSpan {
  readonly path: string;
  /** Where the bytes lie in the file; left out, they are the whole file. */
  readonly at?: { readonly offset: number; readonly length: number };
}

/** Reads the bytes. @throws Error naming the file if it cannot be read or ends too early */
export async function readSpan({ path, at }: FileSpan): Promise<Uint8Array> {
  if (!at) return readFile(path);
  const file = await open(path, "r");
  try {
    const bytes = new Uint8Array(at.length);
    let done = 0;
    while (done < at.length) {
      const { bytesRead } = await file.read(bytes, done, at.length - done, at.offset + done);
      if (bytesRead === 0) {
        throw new Error(
          `${path} ends at byte ${at.offset + done}, but ${at.length} bytes are expected from ${at.offset}`,
        );
      }
      done += bytesRead;
    }
    return bytes;
  } finally {
    await file.close();
  }
}
