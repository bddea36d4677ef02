/** A data set of pictures and words, in parts that are listed one at a time: a tar of web shards, or a whole folder. */
import type { FileSpan } from "./file-span.ts";

/** One picture and what is said of it. */
export interface ImageTextPair {
  /** For messages, and to tell pairs apart: the picture's path, or `SHARD.tar/key`. */
  readonly name: string;
  readonly picture: FileSpan;
  /** None in a folder of pictures alone. */
  readonly texts: readonly string[];
}

/** A sample that cannot be used. */
export interface Problem {
  readonly name: string;
  readonly reason: string;
}

/** What a part lists: its pairs in a fixed order, and what had to be left out. */
export interface PartContents {
  readonly pairs: readonly ImageTextPair[];
  readonly problems: readonly Problem[];
}

export interface Part {
  /** Path of the file that lists the pairs. */
  readonly path: string;
  /** Lists the pairs; pictures are not read. @throws Error naming the file if nothing of it can be used */
  read(): Promise<PartContents>;
}

export interface Dataset {
  readonly layout: string;
  readonly parts: readonly Part[];
}

/** All pairs of all parts. */
export async function listPairs({ parts }: Dataset): Promise<ImageTextPair[]> {
  const pairs: ImageTextPair[] = [];
  for (const part of parts) pairs.push(...(await part.read()).pairs);
  return pairs;
}
