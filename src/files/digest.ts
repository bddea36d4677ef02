/** Hashes of files, as those who publish them write them. */
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";

export interface Digest {
  /** "git-blob" is git's name of a file's content: the SHA-1 of its length and its bytes. */
  readonly algorithm: "sha256" | "md5" | "git-blob";
  /** In hexadecimal, lower case. */
  readonly hex: string;
}

export interface DigestOptions {
  readonly signal?: AbortSignal | undefined;
  /** Bytes that have been read. */
  readonly onBytes?: ((bytes: number) => void) | undefined;
}

/** How people write the algorithms' names. */
export const digestNames = { sha256: "SHA-256", md5: "MD5", "git-blob": "git object id" } as const;

/** In hexadecimal, as sha256sum and the like print it. */
export async function digestOfFile(
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
    // A stream says only that it was stopped, not why.
    signal?.throwIfAborted();
    throw error;
  }
  return hash.digest("hex");
}
