/** Digests of files and bytes, in lower-case hexadecimal. */
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";

export interface Digest {
  /** "git-blob" is git's object id of a file: the SHA-1 of its length and its bytes. */
  readonly algorithm: "sha256" | "md5" | "git-blob";
  readonly hex: string;
}

export interface DigestOptions {
  readonly signal?: AbortSignal;
  /** Called with the number of bytes that have been hashed. */
  readonly onBytes?: (bytes: number) => void;
}

/** What the algorithms are called in messages. */
export const digestNames = { sha256: "SHA-256", md5: "MD5", "git-blob": "git object id" } as const;

/** SHA-256 of bytes, or of text in UTF-8. */
export function sha256Hex(data: Uint8Array | string): string {
  return createHash("sha256").update(data).digest("hex");
}

/** SHA-256 of a file, read in chunks, as sha256sum prints it. */
export function sha256File(path: string, options?: DigestOptions): Promise<string> {
  return digestFile(path, "sha256", options);
}

/** Digest of a file, read in chunks. @throws the signal's reason when it is aborted */
export async function digestFile(
  path: string,
  algorithm: Digest["algorithm"],
  { signal, onBytes }: DigestOptions = {},
): Promise<string> {
  const hash = createHash(algorithm === "git-blob" ? "sha1" : algorithm);
  if (algorithm === "git-blob") hash.update(`blob ${(await stat(path)).size}\0`);
  let done = 0;
  try {
    for await (const chunk of createReadStream(path, { highWaterMark: 2 ** 20, signal }) as AsyncIterable<Uint8Array>) {
      hash.update(chunk);
      done += chunk.length;
      onBytes?.(done);
    }
  } catch (error) {
    // The stream reports only that it was aborted, not why.
    signal?.throwIfAborted();
    throw error;
  }
  return hash.digest("hex");
}
