/**
 * Persistent cache of image features: the frozen layers before the first trained one run once per image.
 *
 * In the cache folder, each key has a folder with a human-readable `cache.json` and segments (`row-segment.ts`). Each process writes its
 * own segment, so that processes do not interfere; a row that two of them compute is stored twice. Node cannot map files into
 * memory without a native add-on, so rows are read at their offsets, several at once, and the page cache keeps them in memory.
 */

import { createHash, randomUUID } from "node:crypto";
import type { Dirent } from "node:fs";
import { mkdir, readdir, readFile, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { writeFileAtomic } from "../files/atomic.ts";
import { readJsonFile } from "../files/json-file.ts";
import { bytesOf, sizeOf, viewBytes } from "../tensor/array.ts";
import { float16ToFloat32, float32ToFloat16 } from "../tensor/float16.ts";
import { countRecords, type RowFormat, RowSegment } from "./row-segment.ts";

/** Name of the file that describes a cache. */
const descriptionFile = "cache.json";
const segmentExtension = ".rows";

const schema = z.object({
  version: z.literal(1),
  key: z.string(),
  shape: z.array(z.number().int().positive()).readonly(),
});

type CacheDescription = z.infer<typeof schema>;

/** The contents of `cache.json`. @throws Error if a dimension of the shape is not positive */
function formatDescription(description: CacheDescription): string {
  return `${JSON.stringify(schema.parse(description), null, 2)}\n`;
}

export interface CacheStatus {
  readonly path: string;
  readonly key: string;
  /** Number of records; a row that two processes wrote counts twice. */
  readonly rows: number;
  readonly bytes: number;
}

/** Lists the caches in `folder`, sorted by path; empty if it does not exist. Other folders are ignored. */
export async function listCaches(folder: string): Promise<CacheStatus[]> {
  const entries = await readdir(folder, { withFileTypes: true }).catch((error: NodeJS.ErrnoException): Dirent[] => {
    if (error.code === "ENOENT") return [];
    throw error;
  });
  const found: CacheStatus[] = [];
  for (const { name } of entries.filter((entry) => entry.isDirectory())) {
    const path = join(folder, name);
    const description = await readDescription(path);
    if (!description) continue;
    const sizes = await Promise.all((await listSegments(path)).map(async (segment) => (await stat(segment)).size));
    const rowBytes = sizeOf(description.shape) * 2;
    found.push({
      path,
      key: description.key,
      rows: sizes.reduce((sum, size) => sum + countRecords(size, rowBytes), 0),
      bytes: sizes.reduce((sum, size) => sum + size, 0),
    });
  }
  return found.sort((a, b) => (a.path < b.path ? -1 : 1));
}

/**
 * Removes the caches in `folder` whose key is not in `keepKeys`. On Windows, files that a process has open remain.
 *
 * @param onWarning called for each cache that could not be removed
 * @returns the caches that were removed
 */
export async function removeStaleCaches(
  folder: string,
  keepKeys: readonly string[],
  onWarning: (message: string) => void = () => {},
): Promise<CacheStatus[]> {
  const removed: CacheStatus[] = [];
  for (const cache of await listCaches(folder)) {
    if (keepKeys.includes(cache.key)) continue;
    try {
      // Remove the description last, so that an interrupted removal can be repeated.
      for (const segment of await listSegments(cache.path)) await rm(segment);
      await rm(cache.path, { recursive: true });
      removed.push(cache);
    } catch (error) {
      onWarning(`${cache.path} cannot be removed: ${error instanceof Error ? error.message : error}`);
    }
  }
  return removed;
}

async function listSegments(path: string): Promise<string[]> {
  return (await readdir(path)).filter((name) => name.endsWith(segmentExtension)).map((name) => join(path, name));
}

async function readDescription(path: string): Promise<CacheDescription | undefined> {
  return readJsonFile(join(path, descriptionFile), schema).catch(() => undefined);
}

export interface CacheRequest {
  readonly folder: string;
  /** Identifies everything that rows depend on besides the image: hash of the encoder weights, config, preprocessing. */
  readonly key: string;
  /** Shape of one row, for example [tokens, width]. */
  readonly shape: readonly number[];
}

/** Location of a row. */
interface RowLocation {
  readonly segment: RowSegment;
  readonly record: number;
}

export class FeatureCache {
  /** Shape of one row. */
  readonly shape: readonly number[];
  private readonly folder: string;
  private readonly format: RowFormat;
  private readonly onWarning: (message: string) => void;
  private readonly rows = new Map<string, RowLocation>();
  private readonly segments: RowSegment[] = [];
  private own: RowSegment | undefined;
  /** Writes are serialized, so that only the last record can be incomplete. */
  private lastWrite: Promise<unknown> = Promise.resolve();

  private constructor(
    folder: string,
    shape: readonly number[],
    format: RowFormat,
    onWarning: (message: string) => void,
  ) {
    this.shape = shape;
    this.folder = folder;
    this.format = format;
    this.onWarning = onWarning;
  }

  /**
   * Opens the cache of a key, or creates it, and indexes the rows that any process has written so far. Reads only the record headers:
   * 100,000 rows of 50 kB take one to three seconds from the page cache, and four to six from a cold SSD.
   *
   * @param onWarning called for files that are not segments of this cache, and for corrupted rows; both are skipped
   */
  static async open(request: CacheRequest, onWarning: (message: string) => void = () => {}): Promise<FeatureCache> {
    const { folder, description, format } = locateCache(request);
    await mkdir(folder, { recursive: true });
    const file = join(folder, descriptionFile);
    const text = formatDescription(description);
    if ((await readFile(file, "utf8").catch(() => "")) !== text) await writeFileAtomic(file, text);
    const cache = new FeatureCache(folder, request.shape, format, onWarning);
    // Oldest first: of two records of an image, the newer one wins.
    for (const name of (await readdir(folder)).sort()) {
      if (name.endsWith(segmentExtension)) await cache.index(join(folder, name));
    }
    return cache;
  }

  /** Number of images in the cache. */
  get size(): number {
    return this.rows.size;
  }

  /** @param id see `imageId` */
  has(id: string): boolean {
    return this.rows.has(id);
  }

  /**
   * Reads a row, as rounded to float16, into `out`.
   * @returns false if the row is missing or corrupted; a corrupted row is dropped, so that it is computed again
   */
  async read(id: string, out: Float32Array): Promise<boolean> {
    this.checkLength(out, id);
    const location = this.rows.get(id);
    if (!location) return false;
    const { segment, record } = location;
    const row = await segment.read(record, id).catch(() => undefined);
    if (row) {
      float16ToFloat32(viewBytes("float16", row), out);
      return true;
    }
    // Unless it was rewritten in the meantime.
    if (this.rows.get(id) === location) this.rows.delete(id);
    this.onWarning(
      `${segment.path}: record ${record} is corrupted; the features of image ${id} will be computed again`,
    );
    return false;
  }

  /** Stores a row as float16. @throws Error naming `id` if a value is not finite, or exceeds the float16 range (65504) */
  async write(id: string, row: Float32Array): Promise<void> {
    if (!/^[0-9a-f]{64}$/.test(id)) throw new RangeError(`${JSON.stringify(id)} is not a SHA-256 in hexadecimal`);
    this.checkLength(row, id);
    const bits = float32ToFloat16(row);
    const invalid = bits.findIndex((value) => (value & float16Infinity) === float16Infinity);
    if (invalid >= 0) {
      throw new Error(`Features of image ${id}: value ${invalid} is ${row[invalid]}, which float16 cannot represent`);
    }
    const writing = this.lastWrite.then(async () => {
      const segment = await this.ownSegment();
      this.rows.set(id, { segment, record: await segment.append(id, bytesOf(bits)) });
    });
    this.lastWrite = writing.catch(() => {});
    return writing;
  }

  /** Waits for pending writes and closes the files. */
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
      for (const [record, id] of (await segment.readIds()).entries()) this.rows.set(id, { segment, record });
    } catch (error) {
      this.onWarning(`${path} is skipped: ${error instanceof Error ? error.message : error}`);
    }
  }

  /** Created by the first write, so that readers leave no files. Segments of other processes are never appended to. */
  private async ownSegment(): Promise<RowSegment> {
    if (!this.own) {
      const time = new Date().toISOString().replace(/\W/g, "");
      const path = join(this.folder, `${time}-${randomUUID()}${segmentExtension}`);
      this.own = await RowSegment.create(path, this.format);
      this.segments.push(this.own);
    }
    return this.own;
  }

  private checkLength(row: Float32Array, id: string): void {
    const values = this.format.rowBytes / 2;
    if (row.length !== values) {
      throw new RangeError(`Features of image ${id}: expected ${values} values, found ${row.length}`);
    }
  }
}

/** Exponent bits of infinity and NaN. */
const float16Infinity = 0x7c00;

/** The folder is named by a prefix of the hash of key and shape; each segment contains the whole hash. */
function locateCache({ folder, key, shape }: CacheRequest): {
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
 * The id of an image in a cache, in hexadecimal: the SHA-256 of its encoded bytes or, for a view of it, the SHA-256 of that hash and the
 * view's name.
 */
export function imageId(bytes: Uint8Array, view?: string): string {
  const hash = createHash("sha256").update(bytes).digest();
  return (view === undefined ? hash : createHash("sha256").update(hash).update(view).digest()).toString("hex");
}
