/** Lists the members of a tar file (ustar, GNU long names, pax) by seeking from header to header, without reading their contents. */
import { Header, Pax } from "tar";
import { quote } from "../../files/errors.ts";
import type { RandomAccessFile } from "../../files/file.ts";

export interface TarMember {
  readonly name: string;
  /** Byte offset of the contents in the tar. */
  readonly offset: number;
  readonly length: number;
}

const block = 512;
/** Limit for a long name or a set of pax records; real ones take a few blocks. */
const maxExtensionBytes = 2 ** 20;
/** Enough for the captions between two images and the next header. */
const readAheadBytes = 8192;

/** Their headers may state a size, but they have no contents. */
const typesWithoutContents = new Set(["Link", "SymbolicLink", "CharacterDevice", "BlockDevice", "Directory", "FIFO"]);

/** Reads short, adjacent ranges of a file with one system call. */
export class ReadAhead {
  readonly size: number;
  private readonly file: RandomAccessFile;
  private bytes: Buffer = Buffer.alloc(0);
  private start = 0;

  constructor(file: RandomAccessFile) {
    this.file = file;
    this.size = file.size;
  }

  /** @throws Error if the range exceeds the file */
  async read(offset: number, length: number): Promise<Buffer> {
    if (offset < this.start || offset + length > this.start + this.bytes.length) {
      const ahead = Math.max(length, Math.min(readAheadBytes, this.size - offset));
      this.bytes = Buffer.from((await this.file.read(offset, ahead)).buffer);
      this.start = offset;
    }
    return this.bytes.subarray(offset - this.start, offset - this.start + length);
  }
}

/**
 * The regular files of a tar, in the tar's order.
 *
 * @throws Error naming the byte at which the tar is corrupted or truncated, after all members before it were yielded
 */
export async function* tarMembers(file: ReadAhead): AsyncGenerator<TarMember> {
  let extension: { path?: string; size?: number } = {};
  for (let position = 0; ; ) {
    if (position + block > file.size) {
      throw new Error(`byte ${position}: the end-of-archive marker is missing; is the tar truncated?`);
    }
    const header = decodeHeader(await file.read(position, block), position);
    if (header.nullBlock) return;
    const readExtension = extensionTypes[header.type];
    const length = typesWithoutContents.has(header.type)
      ? 0
      : readExtension
        ? header.size
        : (extension.size ?? header.size);
    const name = extension.path ?? header.path ?? "";
    const offset = position + block;
    if (!isLength(length))
      throw new Error(`byte ${position}: the size of ${quote(name)} is ${length ?? "not a number"}`);
    if (length > file.size - offset) {
      throw new Error(
        `byte ${position}: ${quote(name)} has ${length} bytes, but only ${file.size - offset} follow; is the tar truncated?`,
      );
    }
    if (readExtension) {
      if (length > maxExtensionBytes)
        throw new Error(`byte ${position}: an extended header of ${length} bytes (limit ${maxExtensionBytes})`);
      extension = { ...extension, ...readExtension(await file.read(offset, length)) };
    } else {
      if (header.type === "File" || header.type === "OldFile" || header.type === "ContiguousFile") {
        yield { name, offset, length };
      }
      extension = {};
    }
    position = offset + Math.ceil(length / block) * block;
  }
}

function decodeHeader(bytes: Buffer, position: number): Header {
  try {
    // The caller applies extensions: passed in here, a pax path would be prefixed with the short name's folder.
    const header = new Header(bytes);
    if (header.cksumValid || header.nullBlock) return header;
    throw new Error("wrong checksum");
  } catch (cause) {
    const hint = position === 0 ? "; is this an uncompressed tar file?" : "";
    throw new Error(`byte ${position}: not a tar header (${(cause as Error).message})${hint}`, { cause });
  }
}

/** Members that describe the next one. */
const extensionTypes: Readonly<Record<string, (bytes: Buffer) => { path?: string; size?: number }>> = {
  ExtendedHeader: paxRecords,
  OldExtendedHeader: paxRecords,
  NextFileHasLongPath: longName,
  OldGnuLongPath: longName,
  NextFileHasLongLinkpath: () => ({}),
  // Global records contain neither names nor sizes.
  GlobalExtendedHeader: () => ({}),
};

function paxRecords(bytes: Buffer): { path?: string; size?: number } {
  const { path, size } = Pax.parse(bytes.toString());
  // Left out if undefined, so that they do not override an earlier extension.
  return { ...(path !== undefined && { path }), ...(size !== undefined && { size }) };
}

function longName(bytes: Buffer): { path: string } {
  const end = bytes.indexOf(0);
  return { path: bytes.toString("utf8", 0, end < 0 ? bytes.length : end) };
}

function isLength(value: number | undefined): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}
