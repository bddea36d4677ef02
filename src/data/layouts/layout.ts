/** What each layout of a data set says of itself. */
import type { Dataset, PartContents } from "../dataset.ts";
import type { ParquetFilter } from "./parquet-filter.ts";

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
  /** COCO: folder of the pictures. */
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
