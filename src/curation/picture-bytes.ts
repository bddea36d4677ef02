/** A picture's bytes, as long as they are those that were added to the project. */
import { createHash } from "node:crypto";
import { readSpan } from "../data/file-span.ts";
import type { Picture } from "./entry.ts";

/** The picture's file is gone, cannot be read, or holds something else now. */
export class PictureLostError extends Error {
  override name = "PictureLostError";
}

/** @throws PictureLostError */
export async function pictureBytes({ source, sha256 }: Picture): Promise<Uint8Array> {
  const bytes = await readSpan(source).catch((cause: NodeJS.ErrnoException) => {
    const what = cause.code === "ENOENT" ? "is not there any more" : `cannot be read: ${cause.message}`;
    throw new PictureLostError(`${source.path} ${what}`, { cause });
  });
  if (sha256Of(bytes) === sha256) return bytes;
  throw new PictureLostError(
    `${source.path} has changed since it was added to the project (its SHA-256 is another one)`,
  );
}

/** In hexadecimal. */
export function sha256Of(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}
