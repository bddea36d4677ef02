/**
 * A file that is downloaded next to its target and renamed when it is complete and its digest is right. An interrupted
 * download is resumed by the next attempt.
 */
import { randomUUID } from "node:crypto";
import { type FileHandle, open, readdir, rename, rm, stat } from "node:fs/promises";
import { hostname } from "node:os";
import { dirname, join } from "node:path";
import { isTemporaryOf, syncFolder } from "./atomic.ts";
import { type Digest, type DigestOptions, digestFile, digestNames, sha256Hex } from "./digest.ts";
import { isDiskFull, isMissing, unlessMissing } from "./errors.ts";

/** A download that is alive writes much more often than this (milliseconds). */
const abandonedAfter = 120_000;

/** Partial files name the machine and process that write them, so that the file of a killed process is recognized immediately. */
const machine = sha256Hex(hostname()).slice(0, 8);

/**
 * While it is written the file is called `TARGET.<machine>-<process>-<id>.partial`, so that processes that download the same
 * file do not disturb each other. An interrupted download leaves `TARGET.partial`, which the next attempt takes over.
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

  /** Takes over the file of an earlier attempt at `target`, or creates an empty one. The folder must exist. */
  static async open(target: string): Promise<PartialFile> {
    const path = `${target}.${machine}-${process.pid}-${randomUUID()}.partial`;
    for (const abandoned of await findAbandoned(target)) {
      const handle = await takeOver(abandoned, path);
      if (handle) return new PartialFile(target, path, handle, (await handle.stat()).size);
    }
    return new PartialFile(target, path, await open(path, "wx"), 0);
  }

  /** Bytes that an earlier attempt at `target` left, in a folder that need not exist. */
  static async countResumable(target: string): Promise<number> {
    const [first] = (await unlessMissing(findAbandoned(target))) ?? [];
    return first === undefined ? 0 : ((await unlessMissing(stat(first)))?.size ?? 0);
  }

  /** Bytes written so far, including those of earlier attempts. */
  get size(): number {
    return this.written;
  }

  /** Empties the file. */
  async restart(): Promise<void> {
    await this.handle.truncate(0);
    this.written = 0;
  }

  /** Appends `chunks` until the file has `limit` bytes; later chunks are not read. */
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

  /** Renames the file to its target. @throws Error if its digest is wrong; the file is deleted then */
  async finish(digest: Digest | undefined, options?: DigestOptions): Promise<void> {
    await this.handle.sync();
    await this.handle.close();
    if (digest) await this.verify(digest, options);
    await rename(this.path, this.target);
    await rm(`${this.target}.partial`, { force: true });
    await syncFolder(dirname(this.target));
  }

  private async verify({ algorithm, hex }: Digest, options?: DigestOptions): Promise<void> {
    const found = await digestFile(this.path, algorithm, options);
    if (found === hex) return;
    await this.discard();
    throw new Error(`its ${digestNames[algorithm]} should be ${hex}, but is ${found}; the received data was deleted`);
  }

  /** Keeps the received bytes for a later attempt. Does nothing after `finish`. */
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

export interface ReceiveOptions extends DigestOptions {
  /** Expected digest; the file is not verified without one. */
  readonly digest?: Digest;
  /** Writes the content. */
  readonly fill: (partial: PartialFile) => Promise<void>;
}

/**
 * Receives a file into `target`. If `fill` fails, the received bytes are kept for the next attempt, unless the disk is full.
 * @throws Error of `fill`, or if the digest is wrong
 */
export async function receiveFile(target: string, { digest, fill, ...options }: ReceiveOptions): Promise<void> {
  const partial = await PartialFile.open(target);
  try {
    await fill(partial);
    await partial.finish(digest, options);
  } catch (error) {
    await (isDiskFull(error) ? partial.discard() : partial.keep());
    throw error;
  }
}

/** Partial files of `target` that no process is writing to. */
async function findAbandoned(target: string): Promise<string[]> {
  const folder = dirname(target);
  const found: string[] = [];
  for (const name of (await readdir(folder)).filter((name) => isTemporaryOf(target, name))) {
    const path = join(folder, name);
    const status = await unlessMissing(stat(path));
    if (!status) continue;
    const isOld = Date.now() - status.mtimeMs > abandonedAfter;
    if (path === `${target}.partial` || isOld || wasKilled(name)) found.push(path);
  }
  return found;
}

/** Whether a partial file's name is that of a process of this machine that no longer runs. */
function wasKilled(name: string): boolean {
  const [, owner, id] = /\.([0-9a-f]{8})-(\d+)-[0-9a-f-]+\.partial$/.exec(name) ?? [];
  return owner === machine && !isRunning(Number(id));
}

function isRunning(processId: number): boolean {
  try {
    return process.kill(processId, 0);
  } catch (error) {
    return !(error instanceof Error && "code" in error && error.code === "ESRCH");
  }
}

/** Opens an abandoned file under its new name; undefined if another process was faster. */
async function takeOver(abandoned: string, path: string): Promise<FileHandle | undefined> {
  const handle = await unlessMissing(open(abandoned, "r+"));
  if (!handle) return undefined;
  try {
    // Make it look recent first, so that no other process takes it over under its new name.
    await handle.utimes(new Date(), new Date());
    await rename(abandoned, path);
    return handle;
  } catch (error) {
    await handle.close();
    if (isMissing(error)) return undefined;
    throw error;
  }
}
