/**
 * The file of an image index: a header of 20 bytes (magic and version 8, length of the head 4, CRC-32 of the head 4, CRC-32 of
 * the vectors 4), the head as JSON, and the vectors of its images as float16, in the order of the head.
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

// Files of weights, by which it is known again with what an index was made.

/** How a file is known to be untouched without being read: packages give their files one date, but the system notes each change. */
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

/** The files with their hashes, which are not computed again for those that are as they were. @param known from an earlier time */
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
const headerBytes = magic.length + 12;
/** Vectors are written and summed up in pieces of this size. */
const pieceBytes = 2 ** 24;

const schema = z.strictObject({
  /** The folder of the images. */
  folder: z.string(),
  /** What the vectors depend on besides the images, see `Origin`. */
  settings: z.string(),
  files: z.array(hashedFileSchema),
  shape: z.tuple([z.int().positive(), z.int().positive()]),
  images: z.array(
    z.object({
      /** Its path below the folder, with "/" between its parts. */
      name: z.string(),
      bytes: z.int().nonnegative(),
      /** When it was changed last; null where it may be changed again without a later time. */
      modifiedMs: z.number().nullable(),
      /** See `imageId`. */
      id: z.string().regex(/^[0-9a-f]{64}$/),
      /** Why it has no vectors. */
      problem: z.string().optional(),
    }),
  ),
});

export type IndexHeader = z.infer<typeof schema>;
export type IndexedImage = IndexHeader["images"][number];

/** A file that is something else, which must not be written over. */
export class ForeignFileError extends Error {
  override name = "ForeignFileError";
}

/** @returns the head, and the vectors of its images without a problem. @throws Error naming the file if it is damaged */
export async function readIndex(path: string): Promise<{ head: IndexHeader; vectors: Uint16Array }> {
  const file = await RandomAccessFile.open(path);
  try {
    return await inFile(path, async () => {
      const header = await file.read(0, Math.min(headerBytes, file.size));
      if (!magic.equals(header.subarray(0, magic.length))) throw new ForeignFileError(`${path} is no image index`);
      if (header.length < headerBytes) throw new Error("is cut off");
      const fields = new DataView(header.buffer, header.byteOffset + magic.length);
      const [headBytes, headSum, vectorSum] = [0, 4, 8].map((at) => fields.getUint32(at, true)) as [
        number,
        number,
        number,
      ];
      const text = await file.read(headerBytes, headBytes);
      if (crc32(text) !== headSum) throw new Error("its head is damaged");
      const head = schema.parse(JSON.parse(Buffer.from(text).toString("utf8")));
      const start = headerBytes + headBytes;
      const expected = vectorBytes(head);
      if (file.size - start !== expected)
        throw new Error(`has ${file.size - start} bytes of vectors, expected ${expected}`);
      const { bytes, sum } = await readSummed(file, start, expected);
      if (sum !== vectorSum) throw new Error("its vectors are damaged");
      return { head, vectors: viewBytes("float16", bytes) };
    });
  } finally {
    await file.close();
  }
}

/** Writes an index beside `path`, and puts it there. @param rows vectors of the images without a problem, in any pieces */
export async function writeIndex(path: string, head: IndexHeader, rows: Iterable<Uint16Array>): Promise<void> {
  const text = Buffer.from(JSON.stringify(head), "utf8");
  await writeFileAtomic(path, async (file) => {
    let at = headerBytes;
    let sum = 0;
    const write = async (bytes: Uint8Array) => {
      for (let done = 0; done < bytes.length; ) {
        const { bytesWritten } = await file.write(bytes, done, bytes.length - done, at + done);
        done += bytesWritten;
      }
      at += bytes.length;
    };
    await write(text);
    for (const piece of pieces(rows)) {
      sum = crc32(piece, sum);
      await write(piece);
    }
    const header = Buffer.alloc(headerBytes);
    magic.copy(header);
    [text.length, crc32(text), sum].forEach((value, i) => {
      header.writeUInt32LE(value, magic.length + 4 * i);
    });
    at = 0;
    await write(header);
  });
}

function vectorBytes({ images, shape }: IndexHeader): number {
  return 2 * sizeOf(shape) * images.filter(({ problem }) => problem === undefined).length;
}

/** Bytes with their checksum: while one piece is summed up, the next one is read. */
async function readSummed(
  file: RandomAccessFile,
  start: number,
  length: number,
): Promise<{ readonly bytes: Uint8Array; readonly sum: number }> {
  const bytes = new Uint8Array(length);
  const read = (at: number) => {
    const piece = bytes.subarray(at, at + pieceBytes);
    return file.read(start + at, piece.length, piece);
  };
  let sum = 0;
  let next = read(0);
  for (let at = 0; at < length; at += pieceBytes) {
    const piece = await next;
    if (at + pieceBytes < length) next = read(at + pieceBytes);
    sum = crc32(piece, sum);
  }
  await next;
  return { bytes, sum };
}

/** The same bytes in pieces of a size that is quick to write. */
function* pieces(rows: Iterable<Uint16Array>): Generator<Uint8Array> {
  const piece = new Uint8Array(pieceBytes);
  let filled = 0;
  for (const row of rows) {
    const bytes = bytesOf(row);
    for (let done = 0; done < bytes.length; ) {
      const part = bytes.subarray(done, done + pieceBytes - filled);
      piece.set(part, filled);
      filled += part.length;
      done += part.length;
      if (filled < pieceBytes) continue;
      yield piece;
      filled = 0;
    }
  }
  if (filled > 0) yield piece.subarray(0, filled);
}

// The image files of a folder and of those below it, as they are now.

export interface FolderImage {
  readonly path: string;
  /** Its path below the folder, with "/" between its parts. */
  readonly name: string;
  readonly bytes: number;
  /** When it was changed last; null where it may change again without a later time, as file systems count in steps. */
  readonly modifiedMs: number | null;
}

/** The coarsest steps of a file system in use (FAT), in milliseconds. */
const coarsestTime = 2000;
/** Files that are asked for side by side. */
const atOnce = 256;

/** The images by name, and what cannot be read. @throws Error if the folder itself cannot be read */
export async function listFolder(folder: string): Promise<{ images: FolderImage[]; problems: InvalidSample[] }> {
  if (!(await stat(folder)).isDirectory()) throw new Error(`${folder} is no folder`);
  const paths: string[] = [];
  const problems: InvalidSample[] = [];
  for await (const found of imageFiles(folder)) {
    if ("path" in found) paths.push(found.path);
    else if (found.name === folder) throw new Error(`${folder} ${found.reason}`);
    else problems.push(found);
  }
  const images: FolderImage[] = [];
  const now = Date.now();
  for (let start = 0; start < paths.length; start += atOnce) {
    const batch = paths.slice(start, start + atOnce);
    const entries = await Promise.all(batch.map((path) => stat(path).catch((cause: Error) => cause)));
    batch.forEach((path, i) => {
      const name = relative(folder, path).replaceAll(sep, "/");
      const entry = entries[i];
      // A name that ends like an image's may be anything: a link to a folder, a pipe that would never end.
      if (entry instanceof Error) problems.push({ name, reason: `cannot be read: ${entry.message}` });
      else if (entry?.isFile()) {
        const isSettled = entry.mtimeMs < now - coarsestTime;
        images.push({ path, name, bytes: entry.size, modifiedMs: isSettled ? entry.mtimeMs : null });
      }
    });
  }
  return { images, problems };
}
