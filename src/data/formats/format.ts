/** What a dataset format implements, and the list of pairs that formats with a caption file build. */
import { isAbsolute, join, relative, sep } from "node:path";
import type { Dataset, InvalidSample, PartContents } from "../dataset.ts";
import type { ParquetFilter } from "./parquet.ts";

/** What was found at a dataset's path. */
export interface DatasetLocation {
  readonly path: string;
  readonly kind: "file" | "folder" | "range";
  /** Names in the folder, sorted; empty for files and ranges. */
  readonly names: readonly string[];
}

export interface FormatOptions {
  /** Web shards: keep only samples whose row in the parquet file next to the shard matches. */
  readonly filter?: ParquetFilter;
  /** COCO: folder of the images. */
  readonly images?: string;
}

export interface DatasetFormat {
  /** One line for error messages. */
  readonly summary: string;
  /** Options that this format supports. */
  readonly options: readonly (keyof FormatOptions)[];
  matches(location: DatasetLocation): boolean;
  /** @throws Error naming the file or folder that is missing or invalid */
  open(location: DatasetLocation, options: FormatOptions): Promise<Pick<Dataset, "parts">>;
}

/** A dataset that a single file or folder lists. */
export function singlePart(path: string, read: () => Promise<PartContents>): Pick<Dataset, "parts"> {
  return { parts: [{ path, read }] };
}

export interface CaptionListOptions {
  /** The file that lists the images. */
  readonly file: string;
  /** The dataset's folder; no image path may point outside of it. */
  readonly root: string;
  /** Folder that image names are relative to. */
  readonly images: string;
}

/** Collects the pairs of a caption file: each image once, where it first appears, with all its captions. */
export class CaptionList {
  private readonly options: CaptionListOptions;
  private readonly texts = new Map<string, string[]>();
  private readonly invalid: InvalidSample[] = [];

  constructor(options: CaptionListOptions) {
    this.options = options;
  }

  /** Adds captions of an image, or an invalid sample. `position` locates the entry in the file, for messages. */
  add(position: string, image: unknown, captions: readonly unknown[]): void {
    const texts = usableTexts(captions);
    if (!isFileName(image)) this.skip(position, "names no image");
    else if (this.isOutside(image)) this.skip(position, `names an image outside of ${this.options.root}`);
    else if (texts.length === 0) this.skip(position, "has no text");
    else {
      const path = join(this.options.images, image);
      const known = this.texts.get(path);
      if (known) known.push(...texts);
      else this.texts.set(path, texts);
    }
  }

  /** Records an invalid sample. */
  skip(position: string, reason: string): void {
    this.invalid.push({ name: `${this.options.file}, ${position}`, reason });
  }

  /** @throws Error naming the file if it has no usable pair */
  contents(): PartContents {
    const { texts, invalid } = this;
    if (texts.size === 0) {
      const [first] = invalid;
      if (!first) throw new Error(`${this.options.file} lists no images`);
      throw new Error(`${first.name}: ${first.reason}; the file has no other usable entry`);
    }
    return { pairs: [...texts].map(([path, captions]) => ({ name: path, image: { path }, texts: captions })), invalid };
  }

  private isOutside(image: string): boolean {
    const { root, images } = this.options;
    const inside = relative(root, join(images, image));
    return isAbsolute(image) || isAbsolute(inside) || inside === ".." || inside.startsWith(`..${sep}`);
  }
}

function isFileName(name: unknown): name is string {
  return typeof name === "string" && name !== "" && !name.includes("\0");
}

/** The non-blank strings among the values, unchanged and without duplicates. */
export function usableTexts(values: readonly unknown[]): string[] {
  const texts = values.flatMap((value) => (typeof value === "string" ? [value] : []));
  return [...new Set(texts)].filter((text) => text.trim() !== "");
}

/** The fields of a JSON object; an empty object for any other value. */
export function jsonFields(value: unknown): Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null ? { ...value } : {};
}
