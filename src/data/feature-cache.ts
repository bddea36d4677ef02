/**
 * Features of images, kept from run to run: what is frozen before the first trained layer is computed once per image.
 *
 * Below the cache's folder each key has a folder with a readable `cache.json` and segments (`row-segment.ts`). A segment
 * belongs to the process that made it, so that processes never disturb each other; a row that two of them computed is there
 * twice, harmlessly. Node cannot map files into memory without a native add-on: rows are read at their offsets, several
 * at once, and it is the system's page cache that keeps them near.
 */

import { createHash, randomUUID } from "node:crypto";
import type { Dirent } from "node:fs";
import { mkdir, readdir, readFile, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { writeWhole } from "../files/atomic.ts";
import { bytesOf, sizeOf, viewBytes } from "../tensor/array.ts";
import { float16ToFloat32, float32ToFloat16 } from "../tensor/float16.ts";
import { type RowFormat, RowSegment, recordsIn } from "./row-segment.ts";

// What a folder of feature caches holds, and removing what is no longer wanted.

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

export interface CacheRequest {
  readonly folder: string;
  /** Everything rows depend on besides the image: encoder weights' hash, config, preprocessing. */
  readonly key: string;
  /** One row, e.g. [cells, width]. */
  readonly shape: readonly number[];
}

/** Where a row lies. */
interface Place {
  readonly segment: RowSegment;
  readonly record: number;
}

export class FeatureCache {
  /** Of one row. */
  readonly shape: readonly number[];
  private readonly folder: string;
  private readonly format: RowFormat;
  private readonly onProblem: (message: string) => void;
  private readonly rows = new Map<string, Place>();
  private readonly segments: RowSegment[] = [];
  private own: RowSegment | undefined;
  /** Writes go one after the other, so that only a last record can be half-written. */
  private lastWrite: Promise<unknown> = Promise.resolve();

  private constructor(
    folder: string,
    shape: readonly number[],
    format: RowFormat,
    onProblem: (message: string) => void,
  ) {
    this.shape = shape;
    this.folder = folder;
    this.format = format;
    this.onProblem = onProblem;
  }

  /**
   * Opens the cache of a key, and makes it if it is not there. Rows that earlier and other processes have written by now
   * are found. Only the heads of records are read: 100,000 rows of 50 kB take one to three seconds from the page cache,
   * and four to six from a cold solid-state disk.
   *
   * @param onProblem is told of files that are no segments of this cache, and of damaged rows; both are passed over
   */
  static async open(request: CacheRequest, onProblem: (message: string) => void = () => {}): Promise<FeatureCache> {
    const { folder, description, format } = placeOf(request);
    await mkdir(folder, { recursive: true });
    const file = join(folder, descriptionFile);
    const text = describeCache(description);
    if ((await readFile(file, "utf8").catch(() => "")) !== text) await writeWhole(file, (to) => to.writeFile(text));
    const cache = new FeatureCache(folder, request.shape, format, onProblem);
    // By age: of two records of the same image the younger one counts.
    for (const name of (await readdir(folder)).sort()) {
      if (name.endsWith(segmentEnding)) await cache.index(join(folder, name));
    }
    return cache;
  }

  /** Images whose row is kept. */
  get size(): number {
    return this.rows.size;
  }

  /** @param id see `imageId` */
  has(id: string): boolean {
    return this.rows.has(id);
  }

  /**
   * Reads a row into `out`, rounded as float16. False if there is none, or if it is damaged; then it is forgotten, so that
   * it is computed again.
   */
  async read(id: string, out: Float32Array): Promise<boolean> {
    this.checkLength(out, id);
    const place = this.rows.get(id);
    if (!place) return false;
    const { segment, record } = place;
    const row = await segment.read(record, id).catch(() => undefined);
    if (row) {
      float16ToFloat32(viewBytes("float16", row), out);
      return true;
    }
    // Unless it has been written anew meanwhile.
    if (this.rows.get(id) === place) this.rows.delete(id);
    this.onProblem(`${segment.path}: record ${record} is damaged; the features of image ${id} are computed again`);
    return false;
  }

  /** Keeps a row, as float16. @throws Error naming `id` if a value is not finite, or beyond 65504, the largest of float16 */
  async write(id: string, row: Float32Array): Promise<void> {
    if (!/^[0-9a-f]{64}$/.test(id)) throw new RangeError(`${JSON.stringify(id)} is no SHA-256 in hexadecimal`);
    this.checkLength(row, id);
    const bits = float32ToFloat16(row);
    const unfit = bits.findIndex((value) => (value & infinity) === infinity);
    if (unfit >= 0) {
      throw new Error(`Features of image ${id}: value ${unfit} is ${row[unfit]}, which float16 cannot keep`);
    }
    const writing = this.lastWrite.then(async () => {
      const segment = await this.ownSegment();
      this.rows.set(id, { segment, record: await segment.append(id, bytesOf(bits)) });
    });
    this.lastWrite = writing.catch(() => {});
    return writing;
  }

  /** Waits for writes, and closes the files. */
  async close(): Promise<void> {
    await this.lastWrite;
    this.rows.clear();
    for (const segment of this.segments.splice(0)) await segment.close();
  }

  private async index(path: string): Promise<void> {
    try {
      const segment = await RowSegment.open(path, this.format);
      if (!segment) return;
      this.segments.push(segment);
      for (const [record, id] of (await segment.ids()).entries()) this.rows.set(id, { segment, record });
    } catch (error) {
      this.onProblem(`${path} is passed over: ${error instanceof Error ? error.message : error}`);
    }
  }

  /** Made at the first write: a process that only reads leaves nothing. Dead processes' segments are never gone on with. */
  private async ownSegment(): Promise<RowSegment> {
    if (!this.own) {
      const time = new Date().toISOString().replace(/\W/g, "");
      const path = join(this.folder, `${time}-${randomUUID()}${segmentEnding}`);
      this.own = await RowSegment.create(path, this.format);
      this.segments.push(this.own);
    }
    return this.own;
  }

  private checkLength(row: Float32Array, id: string): void {
    const values = this.format.rowBytes / 2;
    if (row.length !== values) {
      throw new RangeError(`Features of image ${id}: ${row.length} values, but a row has ${values}`);
    }
  }
}

/** The exponent of float16's infinity and NaN. */
const infinity = 0x7c00;

/** A short name for a key and shape is the folder's; the whole hash stands in each segment. */
function placeOf({ folder, key, shape }: CacheRequest): {
  folder: string;
  description: CacheDescription;
  format: RowFormat;
} {
  const keyHash = createHash("sha256")
    .update(JSON.stringify([key, shape]))
    .digest();
  return {
    folder: join(folder, keyHash.toString("hex").slice(0, 16)),
    description: { version: 1, key, shape },
    format: { keyHash, rowBytes: sizeOf(shape) * 2 },
  };
}

/**
 * The id of an image in a cache: the SHA-256 of its encoded bytes in hexadecimal, or, for a view of it (a flip, a crop),
 * that of this hash and the view's name.
 */
export function imageId(bytes: Uint8Array, view?: string): string {
  const hash = createHash("sha256").update(bytes).digest();
  return (view === undefined ? hash : createHash("sha256").update(hash).update(view).digest()).toString("hex");
}
