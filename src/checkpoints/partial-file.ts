/** A file that is being written beside its final place, and takes that place only when it is whole. */
import { createHash, randomUUID } from "node:crypto";
import { createReadStream } from "node:fs";
import { type FileHandle, open, readdir, rename, rm, stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { pipeline } from "node:stream/promises";

/** A download that lives writes much more often than this (milliseconds). */
const abandonedAfter = 120_000;

/**
 * While it is written the file has a name of its own, `TARGET.<id>.partial`, so that processes which fetch the same file
 * do not disturb each other; what an interrupted one leaves is `TARGET.partial`, which the next one takes over.
 */
export class PartialFile {
  private readonly target: string;
  private readonly path: string;
  private readonly handle: FileHandle;
  private written: number;

  private constructor(target: string, path: string, handle: FileHandle, written: number) {
    this.target = target;
    this.path = path;
    this.handle = handle;
    this.written = written;
  }

  /** Takes over what an earlier attempt at `target` left, else begins an empty file. The folder must exist. */
  static async begin(target: string): Promise<PartialFile> {
    const path = `${target}.${randomUUID()}.partial`;
    for (const leftover of await leftovers(target)) {
      const handle = await takeOver(leftover, path);
      if (handle) return new PartialFile(target, path, handle, (await handle.stat()).size);
    }
    return new PartialFile(target, path, await open(path, "wx"), 0);
  }

  /** Bytes written so far, those of earlier attempts included. */
  get size(): number {
    return this.written;
  }

  /** Empties the file. */
  async restart(): Promise<void> {
    await this.handle.truncate(0);
    this.written = 0;
  }

  /** Appends `chunks` until the file has `limit` bytes; what comes after is not read. */
  async append(
    chunks: AsyncIterable<Uint8Array>,
    limit: number,
    onProgress?: (received: number) => void,
  ): Promise<void> {
    if (this.written >= limit) return;
    for await (const chunk of chunks) {
      const bytes = chunk.subarray(0, limit - this.written);
      for (let done = 0; done < bytes.length; ) {
        const { bytesWritten } = await this.handle.write(bytes, done, bytes.length - done, this.written);
        done += bytesWritten;
        this.written += bytesWritten;
      }
      onProgress?.(this.written);
      if (this.written === limit) return;
    }
  }

  /** Moves the file to its place. @throws Error, and the file is deleted, if its SHA-256 is not `sha256` */
  async finish(sha256: string, signal?: AbortSignal): Promise<void> {
    await this.handle.sync();
    await this.handle.close();
    const found = await sha256OfFile(this.path, signal);
    if (found !== sha256) {
      await this.discard();
      throw new Error(`its SHA-256 should be ${sha256}, but is ${found}; what was received has been deleted`);
    }
    await rename(this.path, this.target);
    await rm(`${this.target}.partial`, { force: true });
  }

  /** Leaves what was written for a later attempt. Does nothing after `finish`. */
  async keep(): Promise<void> {
    if (this.written === 0) return this.discard();
    await this.handle.close();
    await unlessMissing(rename(this.path, `${this.target}.partial`));
  }

  /** Deletes the file. Does nothing after `finish`. */
  async discard(): Promise<void> {
    await this.handle.close();
    await rm(this.path, { force: true });
  }
}

/** In hexadecimal, as sha256sum prints it. */
export async function sha256OfFile(path: string, signal?: AbortSignal): Promise<string> {
  const hash = createHash("sha256");
  await pipeline(createReadStream(path), hash, { signal });
  return hash.digest("hex");
}

/** Partial files of `target` that nobody writes to, where the process that wrote them may have been killed. */
async function leftovers(target: string): Promise<string[]> {
  const folder = dirname(target);
  const found: string[] = [];
  for (const name of await readdir(folder)) {
    if (!(name.startsWith(`${basename(target)}.`) && name.endsWith(".partial"))) continue;
    const path = join(folder, name);
    const status = await unlessMissing(stat(path));
    if (path === `${target}.partial` || (status && Date.now() - status.mtimeMs > abandonedAfter)) found.push(path);
  }
  return found;
}

/** The file under its new name, opened; undefined if another process was faster. */
async function takeOver(leftover: string, path: string): Promise<FileHandle | undefined> {
  const handle = await unlessMissing(open(leftover, "r+"));
  if (!handle) return undefined;
  try {
    // First made young, so that nobody takes the file from us under its new name.
    await handle.utimes(new Date(), new Date());
    await rename(leftover, path);
    return handle;
  } catch (error) {
    await handle.close();
    if (isMissing(error)) return undefined;
    throw error;
  }
}

async function unlessMissing<T>(operation: Promise<T>): Promise<T | undefined> {
  try {
    return await operation;
  } catch (error) {
    if (isMissing(error)) return undefined;
    throw error;
  }
}

function isMissing(error: unknown): boolean {
  return error instanceof Error && "code" in error && error.code === "ENOENT";
}
