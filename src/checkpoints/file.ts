/** Files read at offsets, so that a weight file need not fit into memory. */
import { type FileHandle, open, stat } from "node:fs/promises";

/** One `read` call of the operating system takes at most 2 GiB less a page. */
const largestRead = 2 ** 30;

/** An open file; every read is checked against its size. */
export class RandomAccessFile {
  readonly path: string;
  readonly size: number;
  private readonly handle: FileHandle;

  private constructor(path: string, size: number, handle: FileHandle) {
    this.path = path;
    this.size = size;
    this.handle = handle;
  }

  /** @throws Error if the path is missing, unreadable or no regular file */
  static async open(path: string): Promise<RandomAccessFile> {
    // Before opening: a named pipe would wait for a writer.
    const status = await stat(path);
    if (!status.isFile()) throw new Error(`${path}: not a regular file`);
    return new RandomAccessFile(path, status.size, await open(path, "r"));
  }

  /**
   * `length` bytes from `offset`, in memory of their own, or in that of `bytes`.
   * @throws Error if they do not all lie in the file
   */
  async read(offset: number, length: number, bytes = new Uint8Array(length)): Promise<Uint8Array> {
    if (!(offset >= 0 && length >= 0 && offset + length <= this.size)) {
      throw new Error(`needs bytes ${offset} to ${offset + length}, but the file has ${this.size}; is it truncated?`);
    }
    for (let done = 0; done < length; ) {
      const { bytesRead } = await this.handle.read(bytes, done, Math.min(length - done, largestRead), offset + done);
      if (bytesRead === 0) throw new Error(`became shorter while it was read (at byte ${offset + done})`);
      done += bytesRead;
    }
    return bytes;
  }

  close(): Promise<void> {
    return this.handle.close();
  }
}

/** Runs `work`; whatever it throws names the file. */
export async function inFile<T>(path: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    if (message.includes(path)) throw error;
    throw new Error(`${path}: ${message}`, { cause: error });
  }
}
