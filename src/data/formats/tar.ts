/** Where the members of a tar file lie, found by seeking from header to header: ustar, GNU long names, pax. */
import { Header, Pax } from "tar";
import { quote, type RandomAccessFile } from "../../files/file.ts";

export interface TarMember {
  readonly name: string;
  /** Where its bytes begin in the file. */
  readonly offset: number;
  readonly length: number;
}

const block = 512;
/** A long name or a set of pax records; real ones take a few blocks. */
const largestExtension = 2 ** 20;
/** Takes in the captions between two images, and the next header. */
const aheadBytes = 8192;

/** These have a size at times, but never bytes. */
const withoutBytes = new Set(["Link", "SymbolicLink", "CharacterDevice", "BlockDevice", "Directory", "FIFO"]);

/** A file of which short stretches close to one another are read with one call. */
export class ReadAhead {
  readonly size: number;
  private readonly file: RandomAccessFile;
  private bytes: Buffer = Buffer.alloc(0);
  private start = 0;

  constructor(file: RandomAccessFile) {
    this.file = file;
    this.size = file.size;
  }

  /** `length` bytes from `offset`. @throws Error if they do not all lie in the file */
  async read(offset: number, length: number): Promise<Buffer> {
    if (offset < this.start || offset + length > this.start + this.bytes.length) {
      const wanted = Math.max(length, Math.min(aheadBytes, this.size - offset));
      this.bytes = Buffer.from((await this.file.read(offset, wanted)).buffer);
      this.start = offset;
    }
    return this.bytes.subarray(offset - this.start, offset - this.start + length);
  }
}

/**
 * The regular files of a tar in the order in which they lie in it. Their bytes are passed over, not read.
 *
 * @throws Error naming the byte where the tar is damaged or cut; the members before it have been given by then
 */
export async function* tarMembers(file: ReadAhead): AsyncGenerator<TarMember> {
  let extension: { path?: string; size?: number } = {};
  for (let at = 0; ; ) {
    if (at + block > file.size)
      throw new Error(`byte ${at}: the mark at the end of the tar is missing; is the tar cut short?`);
    const header = decode(await file.read(at, block), at);
    if (header.nullBlock) return;
    const own = extensionTypes[header.type];
    const length = withoutBytes.has(header.type) ? 0 : own ? header.size : (extension.size ?? header.size);
    const name = extension.path ?? header.path ?? "";
    const offset = at + block;
    if (!isLength(length)) throw new Error(`byte ${at}: the size of ${quote(name)} is ${length ?? "no number"}`);
    if (length > file.size - offset) {
      throw new Error(
        `byte ${at}: ${quote(name)} has ${length} bytes, but only ${file.size - offset} follow; is the tar cut short?`,
      );
    }
    if (own) {
      if (length > largestExtension) throw new Error(`byte ${at}: an extended header of ${length} bytes`);
      extension = { ...extension, ...own(await file.read(offset, length)) };
    } else {
      if (header.type === "File" || header.type === "OldFile" || header.type === "ContiguousFile") {
        yield { name, offset, length };
      }
      extension = {};
    }
    at = offset + Math.ceil(length / block) * block;
  }
}

function decode(bytes: Buffer, at: number): Header {
  try {
    // Extensions are applied by the caller: given here, a pax path would get the short name's folder in front.
    const header = new Header(bytes);
    if (header.cksumValid || header.nullBlock) return header;
    throw new Error("its checksum is wrong");
  } catch (cause) {
    const hint = at === 0 ? "; is this a tar file, and not compressed?" : "";
    throw new Error(`byte ${at}: no tar header (${(cause as Error).message})${hint}`, { cause });
  }
}

/** Members that say something of the next one. */
const extensionTypes: Readonly<Record<string, (bytes: Buffer) => { path?: string; size?: number }>> = {
  ExtendedHeader: paxRecords,
  OldExtendedHeader: paxRecords,
  NextFileHasLongPath: longName,
  OldGnuLongPath: longName,
  NextFileHasLongLinkpath: () => ({}),
  // What holds for all members is neither their name nor their size.
  GlobalExtendedHeader: () => ({}),
};

function paxRecords(bytes: Buffer): { path?: string; size?: number } {
  const { path, size } = Pax.parse(bytes.toString());
  return { ...(path === undefined ? {} : { path }), ...(size === undefined ? {} : { size }) };
}

function longName(bytes: Buffer): { path: string } {
  const end = bytes.indexOf(0);
  return { path: bytes.toString("utf8", 0, end < 0 ? bytes.length : end) };
}

function isLength(value: number | undefined): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}
