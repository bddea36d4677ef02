/** What a folder of feature caches holds, and removing what is no longer wanted. */
import type { Dirent } from "node:fs";
import { readdir, readFile, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { sizeOf } from "../../tensor/array.ts";
import { recordsIn } from "./row-segment.ts";

/** In each cache's folder, for people, and for what is below. */
export const descriptionFile = "cache.json";
export const segmentEnding = ".rows";

const schema = z.object({
  version: z.literal(1),
  key: z.string(),
  shape: z.array(z.number().int().positive()).readonly(),
});

export type CacheDescription = z.infer<typeof schema>;

/** The content of `cache.json`. @throws Error if a row of this shape has no values */
export function describeCache(description: CacheDescription): string {
  return `${JSON.stringify(schema.parse(description), null, 2)}\n`;
}

export interface CacheStatus {
  readonly path: string;
  readonly key: string;
  /** Records; one that two processes wrote counts twice. */
  readonly rows: number;
  readonly bytes: number;
}

/** The caches below `folder`, by path; none if it is not there. What is no cache is passed over. */
export async function cacheStatus(folder: string): Promise<CacheStatus[]> {
  const entries = await readdir(folder, { withFileTypes: true }).catch((error: NodeJS.ErrnoException): Dirent[] => {
    if (error.code === "ENOENT") return [];
    throw error;
  });
  const found: CacheStatus[] = [];
  for (const { name } of entries.filter((entry) => entry.isDirectory())) {
    const path = join(folder, name);
    const description = await readDescription(path);
    if (!description) continue;
    const sizes = await Promise.all((await segmentsOf(path)).map(async (segment) => (await stat(segment)).size));
    const rowBytes = sizeOf(description.shape) * 2;
    found.push({
      path,
      key: description.key,
      rows: sizes.reduce((sum, size) => sum + recordsIn(size, rowBytes), 0),
      bytes: sizes.reduce((sum, size) => sum + size, 0),
    });
  }
  return found.sort((a, b) => (a.path < b.path ? -1 : 1));
}

/**
 * Removes the caches below `folder` whose key is none of `keepKeys`; those that were removed. On Windows, files that a
 * process has open stay.
 *
 * @param onProblem is told of caches that could not be removed
 */
export async function removeStale(
  folder: string,
  keepKeys: readonly string[],
  onProblem: (message: string) => void = () => {},
): Promise<CacheStatus[]> {
  const removed: CacheStatus[] = [];
  for (const cache of await cacheStatus(folder)) {
    if (keepKeys.includes(cache.key)) continue;
    try {
      // The description last: what is interrupted can be taken up again.
      for (const segment of await segmentsOf(cache.path)) await rm(segment);
      await rm(cache.path, { recursive: true });
      removed.push(cache);
    } catch (error) {
      onProblem(`${cache.path} cannot be removed now: ${error instanceof Error ? error.message : error}`);
    }
  }
  return removed;
}

async function segmentsOf(path: string): Promise<string[]> {
  return (await readdir(path)).filter((name) => name.endsWith(segmentEnding)).map((name) => join(path, name));
}

async function readDescription(path: string): Promise<CacheDescription | undefined> {
  try {
    return schema.safeParse(JSON.parse(await readFile(join(path, descriptionFile), "utf8"))).data;
  } catch {
    return undefined;
  }
}
