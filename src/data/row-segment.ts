/**
 * One file of a feature cache: a header of 48 bytes (magic and version 8, SHA-256 of the cache's key 32, bytes of a row 8),
 * then records of equal size: id 32, checksum 8, row. One process appends to it; any number read.
 */
import { createHash } from "node:crypto";
import { type FileHandle, open } from "node:fs/promises";

const magic = "mg4rows1";
const headerBytes = 48;
const idBytes = 32;
const headBytes = idBytes + 8;
const readsAtOnce = 64;

/** What all rows of a cache have in common. */
export interface RowFormat {
  /** SHA-256 of what the rows depend on. */
  readonly keyHash: Uint8Array;
  readonly rowBytes: number;
}

export class RowSegment {
  readonly path: string;
  private readonly file: FileHandle;
  private readonly recordBytes: number;
  /** Whole records; a record that another process is writing, or that a dead one left half-written, does not count. */
  private count: number;

  private constructor(path: string, file: FileHandle, { rowBytes }: RowFormat, size: number) {
    this.path = path;
    this.file = file;
    this.recordBytes = headBytes + rowBytes;
    this.count = recordsIn(size, rowBytes);
  }

  /** Begins a new file. */
  static async create(path: string, format: RowFormat): Promise<RowSegment> {
    const file = await open(path, "wx+");
    try {
      await writeAll(file, headerOf(format), 0);
    } catch (error) {
      await file.close();
      throw error;
    }
    return new RowSegment(path, file, format, headerBytes);
  }

  /** Opens a file for reading; undefined if its process has not written its header yet. @throws Error if it is no such file */
  static async open(path: string, format: RowFormat): Promise<RowSegment | undefined> {
    const file = await open(path, "r");
    try {
      const header = Buffer.alloc(headerBytes);
      const { bytesRead } = await file.read(header, 0, headerBytes, 0);
      const expected = headerOf(format).subarray(0, bytesRead);
      if (!header.subarray(0, bytesRead).equals(expected)) throw new Error(`${path} does not belong to this cache`);
      if (bytesRead === headerBytes) return new RowSegment(path, file, format, (await file.stat()).size);
    } catch (error) {
      await file.close();
      throw error;
    }
    await file.close();
    return undefined;
  }

  /** Ids of the records, in their order, in hexadecimal. */
  async ids(): Promise<string[]> {
    const ids = Buffer.alloc(this.count * idBytes);
    // Many small reads: a disk is quicker with several of them to do.
    for (let first = 0; first < this.count; first += readsAtOnce) {
      const reads = Array.from({ length: Math.min(readsAtOnce, this.count - first) }, (_, i) =>
        this.file.read(ids, (first + i) * idBytes, idBytes, this.offsetOf(first + i)),
      );
      await Promise.all(reads);
    }
    return Array.from({ length: this.count }, (_, i) => ids.toString("hex", i * idBytes, (i + 1) * idBytes));
  }

  /** The row of a record, in memory of its own; undefined if it is not what was written for `id`. */
  async read(record: number, id: string): Promise<Uint8Array | undefined> {
    const bytes = Buffer.alloc(this.recordBytes);
    const { bytesRead } = await this.file.read(bytes, 0, bytes.length, this.offsetOf(record));
    const row = bytes.subarray(headBytes);
    return bytesRead === bytes.length && headOf(id, row).equals(bytes.subarray(0, headBytes)) ? row : undefined;
  }

  /** Writes one row behind the others; its record number. Only one call at a time. */
  async append(id: string, row: Uint8Array): Promise<number> {
    await writeAll(this.file, Buffer.concat([headOf(id, row), row]), this.offsetOf(this.count));
    return this.count++;
  }

  close(): Promise<void> {
    return this.file.close();
  }

  private offsetOf(record: number): number {
    return headerBytes + record * this.recordBytes;
  }
}

/** Whole records in a file of `size` bytes. */
export function recordsIn(size: number, rowBytes: number): number {
  return Math.max(0, Math.floor((size - headerBytes) / (headBytes + rowBytes)));
}

function headerOf({ keyHash, rowBytes }: RowFormat): Buffer {
  const size = Buffer.alloc(8);
  size.writeBigUInt64LE(BigInt(rowBytes));
  return Buffer.concat([Buffer.from(magic, "latin1"), keyHash, size]);
}

/** Id and checksum. The checksum is of both id and row, so that no row passes for another image's. */
function headOf(id: string, row: Uint8Array): Buffer {
  const bytes = Buffer.from(id, "hex");
  const checksum = createHash("sha256").update(bytes).update(row).digest();
  return Buffer.concat([bytes, checksum.subarray(0, headBytes - idBytes)]);
}

async function writeAll(file: FileHandle, bytes: Uint8Array, offset: number): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    const { bytesWritten } = await file.write(bytes, done, bytes.length - done, offset + done);
    done += bytesWritten;
  }
}
