/**
 * A segment file of the feature cache: a header of 48 bytes (magic and version 8, SHA-256 of the cache's key 32, bytes per row 8), then
 * records of equal size (id 32, checksum 8, row). One process appends to it; any number of them read it.
 */
import { createHash } from "node:crypto";
import { type FileHandle, open } from "node:fs/promises";

const magic = "mg4rows1";
const headerBytes = 48;
const idBytes = 32;
const recordHeaderBytes = idBytes + 8;
const concurrentReads = 64;

/** Shared by all segments of a cache. */
export interface RowFormat {
  /** SHA-256 of the cache's key and shape. */
  readonly keyHash: Uint8Array;
  readonly rowBytes: number;
}

export class RowSegment {
  readonly path: string;
  private readonly file: FileHandle;
  private readonly recordBytes: number;
  /** Complete records; excludes one that another process is writing or was killed while writing. */
  private count: number;

  private constructor(path: string, file: FileHandle, { rowBytes }: RowFormat, size: number) {
    this.path = path;
    this.file = file;
    this.recordBytes = recordHeaderBytes + rowBytes;
    this.count = countRecords(size, rowBytes);
  }

  /** Creates a new file. */
  static async create(path: string, format: RowFormat): Promise<RowSegment> {
    const file = await open(path, "wx+");
    try {
      await writeAll(file, encodeHeader(format), 0);
    } catch (error) {
      await file.close();
      throw error;
    }
    return new RowSegment(path, file, format, headerBytes);
  }

  /** Opens a file for reading. @returns undefined if its header is incomplete. @throws Error if it belongs to another cache */
  static async open(path: string, format: RowFormat): Promise<RowSegment | undefined> {
    const file = await open(path, "r");
    try {
      const header = Buffer.alloc(headerBytes);
      const { bytesRead } = await file.read(header, 0, headerBytes, 0);
      const expected = encodeHeader(format).subarray(0, bytesRead);
      if (!header.subarray(0, bytesRead).equals(expected)) throw new Error(`${path} does not belong to this cache`);
      if (bytesRead === headerBytes) return new RowSegment(path, file, format, (await file.stat()).size);
    } catch (error) {
      await file.close();
      throw error;
    }
    await file.close();
    return undefined;
  }

  /** Ids of the records in order, in hexadecimal. */
  async readIds(): Promise<string[]> {
    const ids = Buffer.alloc(this.count * idBytes);
    // Many small reads are faster on a disk when several are queued.
    for (let first = 0; first < this.count; first += concurrentReads) {
      const reads = Array.from({ length: Math.min(concurrentReads, this.count - first) }, (_, i) =>
        this.file.read(ids, (first + i) * idBytes, idBytes, this.recordOffset(first + i)),
      );
      await Promise.all(reads);
    }
    return Array.from({ length: this.count }, (_, i) => ids.toString("hex", i * idBytes, (i + 1) * idBytes));
  }

  /** Reads a row. @returns undefined if it is not what was written for `id` */
  async read(record: number, id: string): Promise<Uint8Array | undefined> {
    const bytes = Buffer.alloc(this.recordBytes);
    const { bytesRead } = await this.file.read(bytes, 0, bytes.length, this.recordOffset(record));
    const row = bytes.subarray(recordHeaderBytes);
    return bytesRead === bytes.length && encodeRecordHeader(id, row).equals(bytes.subarray(0, recordHeaderBytes))
      ? row
      : undefined;
  }

  /** Appends a row. Calls must not overlap. @returns its record number */
  async append(id: string, row: Uint8Array): Promise<number> {
    await writeAll(this.file, Buffer.concat([encodeRecordHeader(id, row), row]), this.recordOffset(this.count));
    return this.count++;
  }

  close(): Promise<void> {
    return this.file.close();
  }

  private recordOffset(record: number): number {
    return headerBytes + record * this.recordBytes;
  }
}

/** Complete records in a file of `size` bytes. */
export function countRecords(size: number, rowBytes: number): number {
  return Math.max(0, Math.floor((size - headerBytes) / (recordHeaderBytes + rowBytes)));
}

function encodeHeader({ keyHash, rowBytes }: RowFormat): Buffer {
  const size = Buffer.alloc(8);
  size.writeBigUInt64LE(BigInt(rowBytes));
  return Buffer.concat([Buffer.from(magic, "latin1"), keyHash, size]);
}

/** Id and checksum. The checksum covers both id and row, so that a row is never mistaken for another image's. */
function encodeRecordHeader(id: string, row: Uint8Array): Buffer {
  const bytes = Buffer.from(id, "hex");
  const checksum = createHash("sha256").update(bytes).update(row).digest();
  return Buffer.concat([bytes, checksum.subarray(0, recordHeaderBytes - idBytes)]);
}

async function writeAll(file: FileHandle, bytes: Uint8Array, offset: number): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    const { bytesWritten } = await file.write(bytes, done, bytes.length - done, offset + done);
    done += bytesWritten;
  }
}
