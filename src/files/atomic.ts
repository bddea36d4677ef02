/** A file that is there as a whole or not at all, also if the program or the machine stops while it is written. */
import { randomUUID } from "node:crypto";
import { existsSync } from "node:fs";
import { type FileHandle, open, readdir, rename, rm, stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";

/** A file that is still being written changes much more often than this (milliseconds). */
const abandonedAfter = 600_000;

/**
 * Gives `write` an empty file beside `path`, which takes the place of `path` when `write` is done. If it fails, what was at
 * `path` stays as it was.
 */
export async function writeWhole(path: string, write: (file: FileHandle) => Promise<void>): Promise<void> {
  const partial = `${path}.${randomUUID()}.partial`;
  try {
    const file = await open(partial, "wx");
    try {
      await write(file);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(partial, path);
  } catch (error) {
    await rm(partial, { force: true });
    throw error;
  }
}

/** Removes what was being written for `path` by programs that were killed. */
export async function removeAbandoned(path: string): Promise<void> {
  const folder = dirname(path);
  const partial = (name: string) => name.startsWith(`${basename(path)}.`) && name.endsWith(".partial");
  for (const name of (await readdir(folder)).filter(partial)) {
    const file = join(folder, name);
    const status = await stat(file).catch(() => undefined);
    if (status && Date.now() - status.mtimeMs > abandonedAfter) await rm(file, { force: true });
  }
}

// A new folder in the place of an old one.

/**
 * Moves the folder `by` to `path`. What is at `path` waits at `former` meanwhile, and is removed in the end; it is back at
 * `path` if the new folder cannot be moved there, as where a program on Windows has it open.
 */
export async function replaceFolder(path: string, by: string, former: string): Promise<void> {
  const isReplaced = existsSync(path);
  if (isReplaced) await rename(path, former);
  try {
    await rename(by, path);
  } catch (error) {
    if (isReplaced) await rename(former, path);
    throw error;
  }
  if (isReplaced) await rm(former, { recursive: true, force: true });
}
