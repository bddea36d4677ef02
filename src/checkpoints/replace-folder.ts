/** A new folder in the place of an old one. */
import { existsSync } from "node:fs";
import { rename, rm } from "node:fs/promises";

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
