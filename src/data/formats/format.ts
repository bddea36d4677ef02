/** What each layout of a data set says of itself. */

import { isAbsolute, join, relative, sep } from "node:path";
import type { Dataset, PartContents, Problem } from "../dataset.ts";
import type { ParquetFilter } from "./parquet.ts";

/** What lies at the path of a data set. */
export interface Place {
  readonly path: string;
  readonly kind: "file" | "folder" | "range";
  /** Names in the folder, sorted. */
  readonly names: readonly string[];
}

export interface LayoutOptions {
  /** Web shards: only samples whose row in the parquet file beside the shard satisfies this. */
  readonly filter?: ParquetFilter;
  /** COCO: folder of the images. */
  readonly images?: string;
}

export interface Layout {
  /** What a data set of this layout is, for messages. */
  readonly looksFor: string;
  /** The options that mean something here. */
  readonly options: readonly (keyof LayoutOptions)[];
  recognises(place: Place): boolean;
  /** @throws Error naming the file or folder that is missing or wrong */
  open(place: Place, options: LayoutOptions): Promise<Omit<Dataset, "layout">>;
}

/** A data set that one file lists. */
export function listedBy(path: string, read: () => Promise<PartContents>): Omit<Dataset, "layout"> {
  return { parts: [{ path, read }] };
}

// Pairs as a file of captions mentions them: an image is listed where it comes first, with all that is said of it.

export interface ListingFolders {
  /** The file that mentions the images. */
  readonly file: string;
  /** The data set's folder, which no image's path may leave. */
  readonly root: string;
  /** Where the images' names begin. */
  readonly images: string;
}

export class Listing {
  private readonly folders: ListingFolders;
  private readonly texts = new Map<string, string[]>();
  private readonly problems: Problem[] = [];

  constructor(folders: ListingFolders) {
    this.folders = folders;
  }

  /** `where` names the place in the file, for messages; what is no name or no text is refused. */
  add(where: string, image: unknown, said: readonly unknown[]): void {
    const texts = usableTexts(said);
    if (!isFileName(image)) this.refuse(where, "names no image");
    else if (this.isOutside(image)) this.refuse(where, `names an image outside of ${this.folders.root}`);
    else if (texts.length === 0) this.refuse(where, "has no text");
    else this.keep(join(this.folders.images, image), texts);
  }

  refuse(where: string, reason: string): void {
    this.problems.push({ name: `${this.folders.file}, ${where}`, reason });
  }

  /** @throws Error naming the file if there is no pair in it */
  contents(): PartContents {
    const { problems } = this;
    if (this.texts.size === 0) {
      const first = problems[0];
      if (!first) throw new Error(`${this.folders.file} lists no images`);
      throw new Error(`${first.name}: ${first.reason}; nothing else in the file can be used either`);
    }
    return { pairs: [...this.texts].map(([path, texts]) => ({ name: path, image: { path }, texts })), problems };
  }

  private keep(path: string, texts: string[]): void {
    const known = this.texts.get(path);
    if (known) known.push(...texts);
    else this.texts.set(path, texts);
  }

  private isOutside(image: string): boolean {
    const { root, images } = this.folders;
    const inside = relative(root, join(images, image));
    return isAbsolute(image) || isAbsolute(inside) || inside === ".." || inside.startsWith(`..${sep}`);
  }
}

function isFileName(name: unknown): name is string {
  return typeof name === "string" && name !== "" && !name.includes("\0");
}

/** Those of the values that are texts, as they are; each once. */
export function usableTexts(values: readonly unknown[]): string[] {
  const texts = values.flatMap((value) => (typeof value === "string" ? [value] : []));
  return [...new Set(texts)].filter((text) => text.trim() !== "");
}

/** The fields of a JSON object; none of anything else. */
export function fieldsOf(value: unknown): Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null ? { ...value } : {};
}
