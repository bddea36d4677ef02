/** Files read at offsets, so that a weight file need not fit into memory. */
import { type FileHandle, open, readFile, stat } from "node:fs/promises";

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

/** Text of a file in messages: shortened, and without characters that a terminal would obey. */
export function quote(text: string): string {
  const longest = 100;
  return JSON.stringify(text.length > longest ? `${text.slice(0, longest)}...` : text);
}

/** A whole file, or a range of its bytes, such as an image inside a tar. */
export interface FileSource {
  readonly path: string;
  /** Byte range; the whole file if left out. */
  readonly range?: { readonly offset: number; readonly length: number };
}

/** Reads the bytes. @throws Error naming the file if it cannot be read or ends too early */
export async function readBytes({ path, range }: FileSource): Promise<Uint8Array> {
  if (!range) return readFile(path);
  const file = await open(path, "r");
  try {
    const bytes = new Uint8Array(range.length);
    let done = 0;
    while (done < range.length) {
      const { bytesRead } = await file.read(bytes, done, range.length - done, range.offset + done);
      if (bytesRead === 0) {
        throw new Error(
          `${path} ends at byte ${range.offset + done}, but ${range.length} bytes are expected from ${range.offset}`,
        );
      }
      done += bytesRead;
    }
    return bytes;
  } finally {
    await file.close();
  }
}
