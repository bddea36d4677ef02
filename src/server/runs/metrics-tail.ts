/** Reads a metrics file that may still be growing, in chunks that can be resumed. */
import { constants, watch } from "node:fs";
import { type FileHandle, lstat, open } from "node:fs/promises";
import { dirname } from "node:path";
import { sha256Hex } from "../../files/digest.ts";
import { type Metric, upgradeMetric } from "../../training/metrics/metrics.ts";

/** A line of a metrics file. Numbers that are not finite are null. */
export type MetricLine = Pick<Metric, "kind" | "step" | "time"> & Readonly<Record<string, unknown>>;

export interface MetricsChunk {
  readonly metrics: readonly MetricLine[];
  /** Where the next chunk starts: a byte offset, and a digest of the bytes before it. */
  readonly cursor: string;
  /** The file was replaced: the run was started again, or resumed from an earlier checkpoint. */
  readonly restarted: boolean;
}

const chunkBytes = 256 * 1024;
/** Bytes in the cursor's digest: more than a line, whose time makes the bytes before an offset differ between two files. */
const digestBytes = 512;
const pollMilliseconds = 1000;

/**
 * Reads the next whole lines after a cursor, or from the start without a cursor or if the file was replaced. Skips lines that are
 * not metrics.
 *
 * @returns undefined if the file does not exist
 */
export async function readMetricsChunk(path: string, cursor?: string): Promise<MetricsChunk | undefined> {
  const file = await openFile(path);
  if (!file) return undefined;
  try {
    const isValid = await isCursorValid(file, cursor);
    const start = isValid ? parseOffset(cursor) : 0;
    const lines = await readWholeLines(file, start);
    const end = start + lines.length;
    const metrics = lines.toString("utf8").split("\n").flatMap(parseLine);
    return { metrics, cursor: await createCursor(file, end), restarted: cursor !== undefined && !isValid };
  } finally {
    await file.close();
  }
}

/** Yields new lines as the file grows, until the signal is aborted. Waits for a file that does not exist. */
export async function* followMetrics(
  path: string,
  from: string | undefined,
  signal: AbortSignal,
): AsyncGenerator<MetricsChunk, void> {
  let cursor = from;
  while (!signal.aborted) {
    const changed = nextChange(path, signal);
    const chunk = await readMetricsChunk(path, cursor);
    const hasMoved = chunk !== undefined && chunk.cursor !== cursor;
    if (chunk && (chunk.restarted || hasMoved)) yield chunk;
    cursor = chunk?.cursor ?? cursor;
    if (hasMoved) changed.cancel();
    else await changed.promise;
  }
}

/** The last metrics of the file, oldest first. */
export async function lastMetrics(path: string): Promise<MetricLine[]> {
  const file = await openFile(path);
  if (!file) return [];
  try {
    const { size } = await file.stat();
    const start = Math.max(0, size - chunkBytes);
    const text = (await readBytes(file, start, size)).toString("utf8");
    return text.split("\n").slice(0, -1).flatMap(parseLine);
  } finally {
    await file.close();
  }
}

/** Does not follow links: metrics are files of the run's own folder. */
async function openFile(path: string): Promise<FileHandle | undefined> {
  const info = await lstat(path).catch(() => undefined);
  if (!info?.isFile()) return undefined;
  return open(path, constants.O_RDONLY | (constants.O_NOFOLLOW ?? 0)).catch(() => undefined);
}

async function readWholeLines(file: FileHandle, start: number): Promise<Buffer> {
  const { size } = await file.stat();
  for (let length = chunkBytes; ; length *= 2) {
    const bytes = await readBytes(file, start, Math.min(size, start + length));
    const end = bytes.lastIndexOf("\n") + 1;
    if (end > 0 || start + length >= size) return bytes.subarray(0, end);
  }
}

async function readBytes(file: FileHandle, start: number, end: number): Promise<Buffer> {
  const buffer = Buffer.alloc(Math.max(0, end - start));
  const { bytesRead } = await file.read(buffer, 0, buffer.length, start);
  return buffer.subarray(0, bytesRead);
}

async function createCursor(file: FileHandle, offset: number): Promise<string> {
  const bytes = await readBytes(file, Math.max(0, offset - digestBytes), offset);
  return `${offset}-${sha256Hex(bytes).slice(0, 16)}`;
}

async function isCursorValid(file: FileHandle, cursor: string | undefined): Promise<boolean> {
  if (cursor === undefined || !/^\d{1,15}-[0-9a-f]{16}$/.test(cursor)) return false;
  const offset = parseOffset(cursor);
  return (await file.stat()).size >= offset && (await createCursor(file, offset)) === cursor;
}

function parseOffset(cursor: string | undefined): number {
  return Number.parseInt(cursor ?? "0", 10);
}

function parseLine(line: string): MetricLine[] {
  try {
    const metric = upgradeMetric(JSON.parse(line));
    return isMetric(metric) ? [metric] : [];
  } catch {
    return [];
  }
}

function isMetric(value: unknown): value is MetricLine {
  if (typeof value !== "object" || value === null) return false;
  return "step" in value && typeof value.step === "number" && "time" in value && typeof value.time === "number";
}

/** Resolves after a change in the file's folder, or after a second, since not every file system reports changes. */
function nextChange(path: string, signal: AbortSignal): { promise: Promise<void>; cancel: () => void } {
  const { promise, resolve } = deferred();
  const timer = setTimeout(resolve, pollMilliseconds);
  const close = watchFolder(dirname(path), resolve);
  signal.addEventListener("abort", resolve, { once: true });
  const cancel = () => {
    clearTimeout(timer);
    close();
    signal.removeEventListener("abort", resolve);
    resolve();
  };
  return { promise: promise.finally(cancel), cancel };
}

function watchFolder(folder: string, onChange: () => void): () => void {
  try {
    const watcher = watch(folder, { persistent: false }, onChange);
    watcher.on("error", () => watcher.close());
    return () => watcher.close();
  } catch {
    return () => {};
  }
}

function deferred(): { promise: Promise<void>; resolve: () => void } {
  let resolve = () => {};
  const promise = new Promise<void>((done) => {
    resolve = done;
  });
  return { promise, resolve };
}
