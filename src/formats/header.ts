/** Parses headers of unknown length, by reading a growing part of the file. */
import type { RandomAccessFile } from "../files/file.ts";

/** Thrown to read more of the file. */
class WindowTooSmall extends Error {}

/** A little-endian reader over the bytes of a file from `start`, of which the first `bytes.length` are loaded. */
export class Window {
  /** Offset of the next byte in the file. */
  get position(): number {
    return this.start + this.at;
  }

  private at = 0;
  private readonly bytes: Uint8Array;
  private readonly start: number;
  private readonly fileSize: number;
  private readonly view: DataView;

  constructor(bytes: Uint8Array, start: number, fileSize: number) {
    this.bytes = bytes;
    this.start = start;
    this.fileSize = fileSize;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  /** Bytes of the file that follow. */
  get left(): number {
    return this.fileSize - this.position;
  }

  uint8(): number {
    return this.view.getUint8(this.skip(1));
  }
  int8(): number {
    return this.view.getInt8(this.skip(1));
  }
  uint16(): number {
    return this.view.getUint16(this.skip(2), true);
  }
  int16(): number {
    return this.view.getInt16(this.skip(2), true);
  }
  uint32(): number {
    return this.view.getUint32(this.skip(4), true);
  }
  int32(): number {
    return this.view.getInt32(this.skip(4), true);
  }
  uint64(): bigint {
    return this.view.getBigUint64(this.skip(8), true);
  }
  int64(): bigint {
    return this.view.getBigInt64(this.skip(8), true);
  }
  float32(): number {
    return this.view.getFloat32(this.skip(4), true);
  }
  float64(): number {
    return this.view.getFloat64(this.skip(8), true);
  }
  /** Big endian, as in pickles. */
  float64BigEndian(): number {
    return this.view.getFloat64(this.skip(8), false);
  }

  /** The next `length` bytes, not copied. */
  take(length: number): Uint8Array {
    const from = this.skip(length);
    return this.bytes.subarray(from, from + length);
  }

  /** `length` bytes of UTF-8; invalid bytes become the replacement character. */
  text(length: number): string {
    return utf8.decode(this.take(length));
  }

  /** Bytes up to the next line feed, which is skipped. */
  line(): Uint8Array {
    const end = this.bytes.indexOf(10, this.at);
    if (end < 0) this.tooFew(this.bytes.length - this.at + 1);
    const line = this.take(end - this.at);
    this.skip(1);
    return line;
  }

  private skip(length: number): number {
    const from = this.at;
    if (length > this.bytes.length - from) this.tooFew(length);
    this.at += length;
    return from;
  }

  private tooFew(length: number): never {
    if (this.start + this.bytes.length < this.fileSize && length <= this.left) throw new WindowTooSmall();
    throw new Error(`needs ${length} bytes at byte ${this.position}, but only ${this.left} follow; is it truncated?`);
  }
}

const utf8 = new TextDecoder("utf-8", { ignoreBOM: true });

/**
 * Parses a header at `start`, and retries with more of the file as long as it is incomplete.
 *
 * @throws Error if it does not end within `largest` bytes
 */
export async function parseGrowing<T>(
  file: RandomAccessFile,
  largest: number,
  parse: (window: Window) => T,
  start = 0,
): Promise<T> {
  const end = Math.min(file.size, start + largest);
  for (let length = 2 ** 16; ; length *= 16) {
    const bytes = await file.read(start, Math.min(length, end - start));
    try {
      return parse(new Window(bytes, start, file.size));
    } catch (error) {
      if (!(error instanceof WindowTooSmall)) throw error;
      if (start + length >= end) throw new Error(`its header does not end within ${largest} bytes`);
    }
  }
}
