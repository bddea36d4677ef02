/** Reads a metrics file that may still be written: what there is, then what comes. */
import { constants, watch } from "node:fs";
import { type FileHandle, lstat, open } from "node:fs/promises";
import { dirname } from "node:path";
import { sha256Hex } from "../../files/digest.ts";
import { type Metric, upgradeMetric } from "../../training/metrics/metrics.ts";

/** A line of a metrics file; a number in it that was not finite is null. */
export type MetricLine = Pick<Metric, "kind" | "step" | "time"> & Readonly<Record<string, unknown>>;

export interface MetricsChunk {
  readonly metrics: readonly MetricLine[];
  /** Where the next piece begins: the byte, and a digest of what stands before it. */
  readonly place: string;
  /** The file is not the one that was read before: a run began anew, or went on from a checkpoint. */
  readonly restarted: boolean;
}

const pieceBytes = 256 * 1024;
/** Longer than a line, which holds the time, so that the same text does not stand before the same place of two files. */
const witnessBytes = 512;
const pollMilliseconds = 1000;

/**
 * The next whole lines behind a place, or from the beginning if there is none or the file has become another. A line that is
 * no metric is left out.
 *
 * @returns undefined if there is no such file
 */
export async function readMetricsChunk(path: string, place?: string): Promise<MetricsChunk | undefined> {
  const file = await openFile(path);
  if (!file) return undefined;
  try {
    const known = await isStillThere(file, place);
    const begin = known ? offsetOf(place) : 0;
    const lines = await wholeLines(file, begin);
    const end = begin + lines.length;
    const metrics = lines.toString("utf8").split("\n").flatMap(parseLine);
    return { metrics, place: await placeAt(file, end), restarted: place !== undefined && !known };
  } finally {
    await file.close();
  }
}

/** Pieces as the file grows, none of them without news, until the signal. A file that is gone is waited for. */
export async function* followMetrics(
  path: string,
  from: string | undefined,
  signal: AbortSignal,
): AsyncGenerator<MetricsChunk, void> {
  let place = from;
  while (!signal.aborted) {
    const changed = nextChange(path, signal);
    const piece = await readMetricsChunk(path, place);
    const moved = piece !== undefined && piece.place !== place;
    if (piece && (piece.restarted || moved)) yield piece;
    place = piece?.place ?? place;
    if (moved) changed.cancel();
    else await changed.promise;
  }
}

/** The steps and times of the last lines, oldest first; a beginning that is cut off is left out. */
export async function lastMetrics(path: string): Promise<MetricLine[]> {
  const file = await openFile(path);
  if (!file) return [];
  try {
    const { size } = await file.stat();
    const begin = Math.max(0, size - pieceBytes);
    const text = (await readBytes(file, begin, size)).toString("utf8");
    return text.split("\n").slice(0, -1).flatMap(parseLine);
  } finally {
    await file.close();
  }
}

/** Links are not followed: a run's folder holds its own files. */
async function openFile(path: string): Promise<FileHandle | undefined> {
  const info = await lstat(path).catch(() => undefined);
  if (!info?.isFile()) return undefined;
  return open(path, constants.O_RDONLY | (constants.O_NOFOLLOW ?? 0)).catch(() => undefined);
}

async function wholeLines(file: FileHandle, begin: number): Promise<Buffer> {
  const { size } = await file.stat();
  for (let length = pieceBytes; ; length *= 2) {
    const bytes = await readBytes(file, begin, Math.min(size, begin + length));
    const end = bytes.lastIndexOf("\n") + 1;
    if (end > 0 || begin + length >= size) return bytes.subarray(0, end);
  }
}

async function readBytes(file: FileHandle, begin: number, end: number): Promise<Buffer> {
  const buffer = Buffer.alloc(Math.max(0, end - begin));
  const { bytesRead } = await file.read(buffer, 0, buffer.length, begin);
  return buffer.subarray(0, bytesRead);
}

async function placeAt(file: FileHandle, offset: number): Promise<string> {
  const witness = await readBytes(file, Math.max(0, offset - witnessBytes), offset);
  return `${offset}-${sha256Hex(witness).slice(0, 16)}`;
}

async function isStillThere(file: FileHandle, place: string | undefined): Promise<boolean> {
  if (place === undefined || !/^\d{1,15}-[0-9a-f]{16}$/.test(place)) return false;
  return (await file.stat()).size >= offsetOf(place) && (await placeAt(file, offsetOf(place))) === place;
}

function offsetOf(place: string | undefined): number {
  return Number.parseInt(place ?? "0", 10);
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

/** Something has changed in the file's folder, or a second has passed: not every file system tells of changes. */
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
