/** Room for files that are going to be written, and whether those that were hold what was written to them. */
import { statfs } from "node:fs/promises";
import { join } from "node:path";
import type { Journal } from "./journal.ts";
import { sha256OfFile } from "./partial-file.ts";

/** Steps of long work, in bytes. */
type WorkProgress = (step: "Writing" | "Checking", done: number, total: number) => void;

export interface CheckOptions {
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: WorkProgress | undefined;
}

/** Reads again what a journal tells of. @throws Error if a file is not as it was written; it is made anew the next time */
export async function checkWritten(
  folder: string,
  journal: Journal,
  { signal, onProgress }: CheckOptions = {},
): Promise<void> {
  const files = Object.entries(journal.files);
  const total = files.reduce((sum, [, { bytes }]) => sum + bytes, 0);
  let done = 0;
  for (const [name, { bytes, sha256 }] of files) {
    const path = join(folder, name);
    if ((await sha256OfFile(path, signal)) !== sha256) {
      await journal.forget(name);
      throw new Error(`${path} does not hold what was written to it; is the disk sound? Run the same command again`);
    }
    done += bytes;
    onProgress?.("Checking", done, total);
  }
}

/** @throws Error if a folder's disk has not that many bytes left */
export async function checkSpace(folder: string, needed: number): Promise<void> {
  const { bavail, bsize } = await statfs(folder);
  const gigabytes = (bytes: number) => `${(bytes / 1e9).toFixed(1)} GB`;
  if (bavail * bsize >= needed) return;
  throw new Error(`${folder}: ${gigabytes(needed)} are needed, but the disk has ${gigabytes(bavail * bsize)} left`);
}
