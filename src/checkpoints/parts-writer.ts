/** Bytes one after the other in files of a size that hosts take. */
import { createHash, type Hash } from "node:crypto";
import { type FileHandle, open } from "node:fs/promises";
import { join } from "node:path";

/** A file that was written. */
export interface WrittenPart {
  readonly name: string;
  readonly bytes: number;
  /** In hexadecimal. */
  readonly sha256: string;
}

/** Of a file, unless another size is given: GitHub Pages refuses 100 MB, some hosts 50 MB. */
const largestByDefault = 48 * 1024 * 1024;

export class PartsWriter {
  private readonly folder: string;
  private readonly stem: string;
  private readonly largest: number;
  private readonly parts: WrittenPart[] = [];
  private open: { readonly file: FileHandle; readonly hash: Hash; bytes: number } | undefined;
  private length = 0;

  /** @param stem the files are called STEM-0.bin, STEM-1.bin, ... */
  constructor(folder: string, stem: string, largest = largestByDefault) {
    this.folder = folder;
    this.stem = stem;
    this.largest = largest;
  }

  /** Writes bytes at the next multiple of `alignment`; where they begin, counted over all files. */
  async append(bytes: Uint8Array, alignment = 1): Promise<number> {
    const offset = Math.ceil(this.length / alignment) * alignment;
    await this.write(new Uint8Array(offset - this.length));
    await this.write(bytes);
    return offset;
  }

  /** Closes the last file; all that were written. */
  async end(): Promise<WrittenPart[]> {
    await this.closePart();
    return this.parts;
  }

  private async write(bytes: Uint8Array): Promise<void> {
    for (let done = 0; done < bytes.length; ) {
      const part = await this.part();
      const piece = bytes.subarray(done, done + this.largest - part.bytes);
      await part.file.writeFile(piece);
      part.hash.update(piece);
      part.bytes += piece.length;
      done += piece.length;
      if (part.bytes === this.largest) await this.closePart();
    }
    this.length += bytes.length;
  }

  private async part() {
    const file = this.open?.file ?? (await open(join(this.folder, this.nextName), "wx"));
    this.open ??= { file, hash: createHash("sha256"), bytes: 0 };
    return this.open;
  }

  private async closePart(): Promise<void> {
    if (!this.open) return;
    const { file, hash, bytes } = this.open;
    await file.close();
    this.parts.push({ name: this.nextName, bytes, sha256: hash.digest("hex") });
    this.open = undefined;
  }

  private get nextName(): string {
    return `${this.stem}-${this.parts.length}.bin`;
  }
}
