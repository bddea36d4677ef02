/** A file that is being written beside its final place, and takes that place only when it is whole. */
import { createHash, randomUUID } from "node:crypto";
import { type FileHandle, open, readdir, rename, rm, stat } from "node:fs/promises";
import { hostname } from "node:os";
import { basename, dirname, join } from "node:path";
import { type Digest, type DigestOptions, digestNames, digestOfFile } from "./digest.ts";

/** A download that lives writes much more often than this (milliseconds). */
const abandonedAfter = 120_000;

/** Partial files tell which process of which machine writes them: one that was killed leaves its file at once. */
const machine = createHash("sha256").update(hostname()).digest("hex").slice(0, 8);

/**
 * While it is written the file has a name of its own, `TARGET.<machine>-<process>-<id>.partial`, so that processes which
 * fetch the same file do not disturb each other; what an interrupted one leaves is `TARGET.partial`, which the next one
 * takes over.
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
    const path = `${target}.${machine}-${process.pid}-${randomUUID()}.partial`;
    for (const leftover of await leftovers(target)) {
      const handle = await takeOver(leftover, path);
      if (handle) return new PartialFile(target, path, handle, (await handle.stat()).size);
    }
    return new PartialFile(target, path, await open(path, "wx"), 0);
  }

  /** Bytes that an earlier attempt at `target` left, in a folder that need not exist. */
  static async left(target: string): Promise<number> {
    const [first] = (await unlessMissing(leftovers(target))) ?? [];
    return first === undefined ? 0 : ((await unlessMissing(stat(first)))?.size ?? 0);
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

  /** Moves the file to its place. @throws Error, and the file is deleted, if its hash is another one than `digest` */
  async finish(digest: Digest | undefined, options?: DigestOptions): Promise<void> {
    await this.handle.sync();
    await this.handle.close();
    if (digest) await this.check(digest, options);
    await rename(this.path, this.target);
    await rm(`${this.target}.partial`, { force: true });
  }

  private async check({ algorithm, hex }: Digest, options?: DigestOptions): Promise<void> {
    const found = await digestOfFile(this.path, algorithm, options);
    if (found === hex) return;
    await this.discard();
    throw new Error(
      `its ${digestNames[algorithm]} should be ${hex}, but is ${found}; what was received has been deleted`,
    );
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

/**
 * Has `fill` write a file beside `target`, which takes its place if its hash is right. If `fill` fails, what it wrote stays
 * for the next attempt, unless the disk is full.
 */
export async function receiveFile(
  target: string,
  digest: Digest | undefined,
  fill: (partial: PartialFile) => Promise<void>,
  options?: DigestOptions,
): Promise<void> {
  const partial = await PartialFile.begin(target);
  try {
    await fill(partial);
    await partial.finish(digest, options);
  } catch (error) {
    await (isDiskFull(error) ? partial.discard() : partial.keep());
    throw error;
  }
}

/** In hexadecimal, as sha256sum prints it. */
export function sha256OfFile(path: string, signal?: AbortSignal): Promise<string> {
  return digestOfFile(path, "sha256", { signal });
}

/** Partial files of `target` that nobody writes to, where the process that wrote them may have been killed. */
async function leftovers(target: string): Promise<string[]> {
  const folder = dirname(target);
  const found: string[] = [];
  for (const name of await readdir(folder)) {
    if (!(name.startsWith(`${basename(target)}.`) && name.endsWith(".partial"))) continue;
    const path = join(folder, name);
    const status = await unlessMissing(stat(path));
    if (!status) continue;
    const isOld = Date.now() - status.mtimeMs > abandonedAfter;
    if (path === `${target}.partial` || isOld || wasKilled(name)) found.push(path);
  }
  return found;
}

/** Whether the process that a partial file's name tells of was one of this machine, and is no more. */
function wasKilled(name: string): boolean {
  const [, where, id] = /\.([0-9a-f]{8})-(\d+)-[0-9a-f-]+\.partial$/.exec(name) ?? [];
  return where === machine && !isRunning(Number(id));
}

function isRunning(processId: number): boolean {
  try {
    return process.kill(processId, 0);
  } catch (error) {
    return !(error instanceof Error && "code" in error && error.code === "ESRCH");
  }
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

function isDiskFull(error: unknown): boolean {
  return error instanceof Error && "code" in error && (error.code === "ENOSPC" || error.code === "EDQUOT");
}
