/**
 * Files and folders that are complete or absent, even if the process or the machine stops in the middle: they are written
 * under a temporary name next to their target, flushed to the disk (fsync), and renamed.
 */
import { createHash, randomUUID } from "node:crypto";
import { createReadStream, existsSync } from "node:fs";
import { type FileHandle, open, readdir, rename, rm, stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { unlessMissing } from "./errors.ts";

/** Text, bytes, or a function that writes to the open file. */
export type FileContent = string | Uint8Array | ((file: FileHandle) => Promise<void>);

/**
 * Writes a file atomically and durably, replacing the one at `path`. If writing fails, the old file stays as it was and the
 * temporary one is deleted.
 */
export async function writeFileAtomic(path: string, content: FileContent): Promise<void> {
  const temporary = temporaryPath(path);
  try {
    const file = await open(temporary, "wx");
    try {
      await (typeof content === "function" ? content(file) : file.writeFile(content));
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
  await syncFolder(dirname(path));
}

/** Size and SHA-256 (hexadecimal) of a file as it was written. */
export interface WrittenFile {
  readonly bytes: number;
  readonly sha256: string;
}

export interface WriteOptions {
  readonly signal?: AbortSignal;
  /** Called with the length of each chunk that was written. */
  readonly onBytes?: (bytes: number) => void;
}

/** As `writeFileAtomic`, from a stream of chunks, which are hashed on the way. @throws the signal's reason when it is aborted */
export async function streamFileAtomic(
  path: string,
  chunks: AsyncIterable<Uint8Array>,
  { signal, onBytes }: WriteOptions = {},
): Promise<WrittenFile> {
  const hash = createHash("sha256");
  let bytes = 0;
  await writeFileAtomic(path, async (file) => {
    for await (const chunk of chunks) {
      signal?.throwIfAborted();
      await file.writeFile(chunk);
      hash.update(chunk);
      bytes += chunk.length;
      onBytes?.(chunk.length);
    }
  });
  return { bytes, sha256: hash.digest("hex") };
}

/** Copies a file atomically, and hashes it. */
export function copyFileAtomic(from: string, to: string, options: WriteOptions = {}): Promise<WrittenFile> {
  return streamFileAtomic(to, createReadStream(from, { highWaterMark: 2 ** 22, signal: options.signal }), options);
}

/**
 * Moves the folder `replacement` to `path`. The folder at `path` is kept at `former` meanwhile and deleted in the end; it is
 * moved back if the new one cannot take its place (on Windows, if a program has a file in it open).
 */
export async function replaceFolder(path: string, replacement: string, former: string): Promise<void> {
  const isReplaced = existsSync(path);
  if (isReplaced) await rename(path, former);
  try {
    await rename(replacement, path);
  } catch (error) {
    if (isReplaced) await rename(former, path);
    throw error;
  }
  await syncFolder(dirname(path));
  if (isReplaced) await rm(former, { recursive: true, force: true });
}

/** Flushes a rename in `folder` to the disk, where the platform can: Windows cannot open folders, some mounts cannot sync them. */
export async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, "r").catch(() => undefined);
  if (!handle) return;
  try {
    await handle.sync().catch(() => {});
  } finally {
    await handle.close();
  }
}

const ending = ".partial";

/** A new temporary name next to `path`: `PATH.<id>.partial`. */
export function temporaryPath(path: string): string {
  return `${path}.${randomUUID()}${ending}`;
}

/** Whether `name`, in the folder of `path`, is a temporary file or folder of `path`. */
export function isTemporaryOf(path: string, name: string): boolean {
  return name.startsWith(`${basename(path)}.`) && name.endsWith(ending);
}

/** A process that is still writing changes its file far more often than this (milliseconds). */
const abandonedAfter = 600_000;

export interface AbandonedOptions {
  /** Milliseconds since the last change; 0 where no other process can be writing. @default 600_000 (10 minutes) */
  readonly olderThan?: number;
}

/**
 * Deletes temporary files and folders that killed processes left in `folder`, which need not exist. A folder is as old as its
 * youngest direct entry. What cannot be deleted (another user's, or in use on Windows) stays.
 */
export async function removeAbandoned(
  folder: string,
  isTemporary: (name: string) => boolean,
  { olderThan = abandonedAfter }: AbandonedOptions = {},
): Promise<void> {
  for (const name of ((await unlessMissing(readdir(folder))) ?? []).filter(isTemporary)) {
    const path = join(folder, name);
    const changed = await lastChange(path);
    if (changed === undefined || Date.now() - changed < olderThan) continue;
    await rm(path, { recursive: true, force: true, maxRetries: 3 }).catch(() => {});
  }
}

async function lastChange(path: string): Promise<number | undefined> {
  const status = await stat(path).catch(() => undefined);
  if (!status?.isDirectory()) return status?.mtimeMs;
  const names = await readdir(path).catch(() => []);
  const entries = await Promise.all(names.map((name) => stat(join(path, name)).catch(() => undefined)));
  return Math.max(status.mtimeMs, ...entries.map((entry) => entry?.mtimeMs ?? 0));
}
