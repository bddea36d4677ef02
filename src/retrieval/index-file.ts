/**
 * The file format of an image index, and the state of files it is compared with.
 *
 * | bytes | content                                                       |
 * | ----- | ------------------------------------------------------------- |
 * | 8     | magic and version                                             |
 * | 4     | byte length of the JSON header, little-endian like all fields |
 * | 4     | CRC-32 of the JSON header                                     |
 * | 4     | CRC-32 of the embeddings                                      |
 * | ...   | JSON header                                                   |
 * | ...   | float16 embeddings of the images, in the header's order       |
 */
import { stat } from "node:fs/promises";
import { relative, resolve, sep } from "node:path";
import { crc32 } from "node:zlib";
import { z } from "zod";
import type { InvalidSample } from "../data/dataset.ts";
import { imageFiles } from "../data/formats/image-folder.ts";
import { writeFileAtomic } from "../files/atomic.ts";
import { sha256File } from "../files/digest.ts";
import { inFile } from "../files/errors.ts";
import { RandomAccessFile } from "../files/file.ts";
import { bytesOf, sizeOf, viewBytes } from "../tensor/array.ts";

/** Identifies an unchanged file without reading it. The change time, since package managers set every modification time alike. */
const fileStampSchema = z.object({ path: z.string(), bytes: z.number(), changedMs: z.number() });
export type FileStamp = z.infer<typeof fileStampSchema>;

const hashedFileSchema = fileStampSchema.extend({ sha256: z.string() });
export type HashedFile = z.infer<typeof hashedFileSchema>;

export async function stampFiles(paths: readonly string[]): Promise<FileStamp[]> {
  return Promise.all(
    paths.map(async (path) => {
      const { size, ctimeMs } = await stat(path);
      return { path: resolve(path), bytes: size, changedMs: ctimeMs };
    }),
  );
}

/** Hashes files. @param known earlier results, reused for files whose stamp is unchanged */
export async function hashFiles(
  paths: readonly string[],
  known: readonly HashedFile[] = [],
  signal?: AbortSignal,
): Promise<HashedFile[]> {
  const hashed: HashedFile[] = [];
  for (const stamp of await stampFiles(paths)) {
    const { path, bytes, changedMs } = stamp;
    const same = known.find((file) => file.path === path && file.bytes === bytes && file.changedMs === changedMs);
    hashed.push(same ?? { ...stamp, sha256: await sha256File(path, { signal }) });
  }
  return hashed;
}

const magic = Buffer.from("mg4find1", "latin1");
const prefixBytes = magic.length + 12;
/** Embeddings are written and read in chunks of this size. */
const chunkBytes = 2 ** 24;

const headerSchema = z.strictObject({
  /** The folder of the images. */
  folder: z.string(),
  /** What the embeddings depend on besides the images and the weights, see `ModelFingerprint`. */
  settings: z.string(),
  files: z.array(hashedFileSchema),
  shape: z.tuple([z.int().positive(), z.int().positive()]),
  images: z.array(
    z.object({
      /** Path relative to the folder, with "/" as separator. */
      name: z.string(),
      bytes: z.int().nonnegative(),
      /** Modification time; null if the file can still change without a later time. */
      modifiedMs: z.number().nullable(),
      /** Hash of the content, see `imageId`. */
      id: z.string().regex(/^[0-9a-f]{64}$/),
      /** Why the image has no embeddings. */
      problem: z.string().optional(),
    }),
  ),
});

export type IndexHeader = z.infer<typeof headerSchema>;
export type IndexedImage = IndexHeader["images"][number];

/** The file is not an image index and must not be overwritten. */
export class ForeignFileError extends Error {
  override name = "ForeignFileError";
}

/**
 * @returns the header, and the embeddings of its images without a problem
 * @throws ForeignFileError if the file is not an image index; Error naming the file if it is damaged
 */
export async function readIndex(path: string): Promise<{ header: IndexHeader; vectors: Uint16Array }> {
  const file = await RandomAccessFile.open(path);
  try {
    return await inFile(path, async () => {
      const prefix = await file.read(0, Math.min(prefixBytes, file.size));
      if (!magic.equals(prefix.subarray(0, magic.length))) throw new ForeignFileError(`${path} is not an image index`);
      if (prefix.length < prefixBytes) throw new Error("is truncated");
      const fields = new DataView(prefix.buffer, prefix.byteOffset + magic.length);
      const [textBytes, textSum, vectorSum] = [0, 4, 8].map((offset) => fields.getUint32(offset, true)) as [
        number,
        number,
        number,
      ];
      const text = await file.read(prefixBytes, textBytes);
      if (crc32(text) !== textSum) throw new Error("has a damaged header (CRC-32)");
      const header = headerSchema.parse(renameOldKeys(JSON.parse(Buffer.from(text).toString("utf8"))));
      const start = prefixBytes + textBytes;
      const expected = vectorBytes(header);
      if (file.size - start !== expected)
        throw new Error(`has ${file.size - start} bytes of embeddings, expected ${expected}`);
      const { bytes, sum } = await readWithChecksum(file, start, expected);
      if (sum !== vectorSum) throw new Error("has damaged embeddings (CRC-32)");
      return { header, vectors: viewBytes("float16", bytes) };
    });
  } finally {
    await file.close();
  }
}

/** Files written before images were called images list them under `pictures`. */
function renameOldKeys(json: unknown): unknown {
  if (typeof json !== "object" || json === null || !("pictures" in json)) return json;
  const { pictures, ...rest } = json;
  return { ...rest, images: pictures };
}

/** Writes an index atomically. @param rows embeddings of the images without a problem, in chunks of any size */
export async function writeIndex(path: string, header: IndexHeader, rows: Iterable<Uint16Array>): Promise<void> {
  const text = Buffer.from(JSON.stringify(header), "utf8");
  await writeFileAtomic(path, async (file) => {
    let at = prefixBytes;
    let sum = 0;
    const write = async (bytes: Uint8Array) => {
      for (let done = 0; done < bytes.length; ) {
        const { bytesWritten } = await file.write(bytes, done, bytes.length - done, at + done);
        done += bytesWritten;
      }
      at += bytes.length;
    };
    await write(text);
    for (const chunk of toChunks(rows)) {
      sum = crc32(chunk, sum);
      await write(chunk);
    }
    const prefix = Buffer.alloc(prefixBytes);
    magic.copy(prefix);
    [text.length, crc32(text), sum].forEach((value, i) => {
      prefix.writeUInt32LE(value, magic.length + 4 * i);
    });
    at = 0;
    await write(prefix);
  });
}

function vectorBytes({ images, shape }: IndexHeader): number {
  return 2 * sizeOf(shape) * images.filter(({ problem }) => problem === undefined).length;
}

/** Reads bytes and computes their CRC-32; the next chunk is read while one is summed. */
async function readWithChecksum(
  file: RandomAccessFile,
  start: number,
  length: number,
): Promise<{ readonly bytes: Uint8Array; readonly sum: number }> {
  const bytes = new Uint8Array(length);
  const read = (at: number) => {
    const chunk = bytes.subarray(at, at + chunkBytes);
    return file.read(start + at, chunk.length, chunk);
  };
  let sum = 0;
  let next = read(0);
  for (let at = 0; at < length; at += chunkBytes) {
    const chunk = await next;
    if (at + chunkBytes < length) next = read(at + chunkBytes);
    sum = crc32(chunk, sum);
  }
  await next;
  return { bytes, sum };
}

/** The same bytes in chunks of a size that is fast to write. The chunk's buffer is reused. */
function* toChunks(rows: Iterable<Uint16Array>): Generator<Uint8Array> {
  const chunk = new Uint8Array(chunkBytes);
  let filled = 0;
  for (const row of rows) {
    const bytes = bytesOf(row);
    for (let done = 0; done < bytes.length; ) {
      const part = bytes.subarray(done, done + chunkBytes - filled);
      chunk.set(part, filled);
      filled += part.length;
      done += part.length;
      if (filled < chunkBytes) continue;
      yield chunk;
      filled = 0;
    }
  }
  if (filled > 0) yield chunk.subarray(0, filled);
}

/** An image file in a folder, as it is now. */
export interface FolderImage {
  readonly path: string;
  /** Path relative to the folder, with "/" as separator. */
  readonly name: string;
  readonly bytes: number;
  /** Modification time; null if so recent that another change could leave it the same. */
  readonly modifiedMs: number | null;
}

/** Coarsest resolution of modification times in use (FAT), in milliseconds. */
const timeResolutionMs = 2000;
const parallelStats = 256;

/** Lists the images of a folder and its subfolders, and the files that cannot be read. @throws Error if the folder itself cannot be read */
export async function listFolder(folder: string): Promise<{ images: FolderImage[]; problems: InvalidSample[] }> {
  if (!(await stat(folder)).isDirectory()) throw new Error(`${folder} is not a folder.`);
  const paths: string[] = [];
  const problems: InvalidSample[] = [];
  for await (const found of imageFiles(folder)) {
    if ("path" in found) paths.push(found.path);
    else if (found.name === folder) throw new Error(`${folder} ${found.reason}`);
    else problems.push(found);
  }
  const images: FolderImage[] = [];
  const now = Date.now();
  for (let start = 0; start < paths.length; start += parallelStats) {
    const batch = paths.slice(start, start + parallelStats);
    const entries = await Promise.all(batch.map((path) => stat(path).catch((cause: Error) => cause)));
    batch.forEach((path, i) => {
      const name = relative(folder, path).replaceAll(sep, "/");
      const entry = entries[i];
      // The extension does not make it a file: it can be a link to a folder, or a pipe that never ends.
      if (entry instanceof Error) problems.push({ name, reason: `cannot be read: ${entry.message}` });
      else if (entry?.isFile()) {
        const isSettled = entry.mtimeMs < now - timeResolutionMs;
        images.push({ path, name, bytes: entry.size, modifiedMs: isSettled ? entry.mtimeMs : null });
      }
    });
  }
  return { images, problems };
}
