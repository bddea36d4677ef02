/** Files read at offsets, so that a weight file need not fit into memory. */
import { type FileHandle, open, readFile, stat } from "node:fs/promises";

/** One `read` call of the operating system returns at most 2 GiB less a page. */
const maxRead = 2 ** 30;

/** An open file; every read is checked against its size. */
export class RandomAccessFile {
  readonly path: string;
  /** Bytes. */
  readonly size: number;
  private readonly handle: FileHandle;

  private constructor(path: string, size: number, handle: FileHandle) {
    this.path = path;
    this.size = size;
    this.handle = handle;
  }

  /** @throws Error if the path is missing, unreadable or not a regular file */
  static async open(path: string): Promise<RandomAccessFile> {
    // Before opening: a named pipe would wait for a writer.
    const status = await stat(path);
    if (!status.isFile()) throw new Error(`${path}: not a regular file`);
    return new RandomAccessFile(path, status.size, await open(path, "r"));
  }

  /**
   * Reads `length` bytes from `offset`, into `bytes` or new memory.
   * @throws Error if the file ends before
   */
  async read(offset: number, length: number, bytes = new Uint8Array(length)): Promise<Uint8Array> {
    if (!(offset >= 0 && length >= 0 && offset + length <= this.size)) {
      throw new Error(`needs bytes ${offset} to ${offset + length}, but the file has ${this.size}; is it truncated?`);
    }
    const done = await readFully(this.handle, bytes.subarray(0, length), offset);
    if (done < length) throw new Error(`became shorter while it was read (at byte ${offset + done})`);
    return bytes;
  }

  close(): Promise<void> {
    return this.handle.close();
  }
}

/** Bytes of a file: all of it, or a range, such as an image inside a tar. */
export interface FileSource {
  readonly path: string;
  /** In bytes. @default the whole file */
  readonly range?: { readonly offset: number; readonly length: number };
}

/** Reads the bytes. @throws Error naming the file if it cannot be read or ends too early */
export async function readBytes({ path, range }: FileSource): Promise<Uint8Array> {
  if (!range) return readFile(path);
  const file = await open(path, "r");
  try {
    const bytes = new Uint8Array(range.length);
    const done = await readFully(file, bytes, range.offset);
    if (done === range.length) return bytes;
    throw new Error(
      `${path} ends at byte ${range.offset + done}, but ${range.length} bytes are expected from ${range.offset}`,
    );
  } finally {
    await file.close();
  }
}

/** Fills `bytes` from `offset`, as far as the file goes. @returns the number of bytes read */
async function readFully(file: FileHandle, bytes: Uint8Array, offset: number): Promise<number> {
  let done = 0;
  while (done < bytes.length) {
    const { bytesRead } = await file.read(bytes, done, Math.min(bytes.length - done, maxRead), offset + done);
    if (bytesRead === 0) break;
    done += bytesRead;
  }
  return done;
}
