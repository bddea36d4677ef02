/** Writes the pairs of a project as the second stage's data set: `filter_cap.json` and `image/ID.jpg`, and where each came from. */

import { mkdir, readdir, realpath, rename, rm, stat, writeFile } from "node:fs/promises";
import { dirname, isAbsolute, join, relative, resolve, sep } from "node:path";
import { isTemporaryOf, removeAbandoned, replaceFolder, temporaryPath } from "../files/atomic.ts";
import { sha256Hex } from "../files/digest.ts";
import { isDiskFull, isMissing } from "../files/errors.ts";
import { type PairStatus, pairStatus } from "./decisions.ts";
import type { Entry, ProjectImage, Version } from "./entry.ts";
import { imageBytes, toJpeg } from "./images.ts";
import type { CurationStore } from "./store.ts";

// Where a pair of an exported data set comes from: a line of `provenance.jsonl`.

interface Origin extends Pick<Entry, "persons" | "rules"> {
  readonly image: ProjectImage;
  /** All versions of the text, oldest first; the last one is exported. */
  readonly versions: readonly Version[];
  readonly exportedSha256: string;
}

/** Versions are counted from 1. Where the image lay is left out: it says more of the machine than of the data. */
function provenanceOf({ image, versions, persons, rules, exportedSha256 }: Origin) {
  const numberOf = new Map(versions.map(({ id }, i) => [id, i + 1]));
  return {
    image_id: String(image.id),
    name: image.name,
    sha256: image.sha256,
    image_sha256: exportedSha256,
    versions: versions.map(({ kind, author, prompt, text, details, madeAt }) => ({
      kind,
      author,
      prompt,
      text,
      // An edit that its author took back: the text is that of before, and none of theirs.
      undoes: details.undoes === undefined ? undefined : numberOf.get(details.undoes),
      at: date(madeAt),
    })),
    rules: rules && { rules: rules.author, decision: rules.decision, reasons: rules.reasons, at: date(rules.madeAt) },
    reviews: persons.map(({ author, decision, version, madeAt }) => ({
      author,
      decision,
      version: numberOf.get(version),
      at: date(madeAt),
    })),
  };
}

function date(milliseconds: number): string {
  return new Date(milliseconds).toISOString();
}

export interface ExportOptions {
  /** Also what nobody has reviewed, and rules have nothing against. */
  readonly unreviewed?: boolean;
  /** Whether a data set that is in the folder is replaced. */
  readonly overwrite?: boolean;
  readonly signal?: AbortSignal;
  onProgress?(done: number, total: number): void;
}

interface RefusedImage {
  /** Id and name of the image. */
  readonly image: number;
  readonly name: string;
  readonly reason: string;
}

export interface ExportReport {
  readonly folder: string;
  readonly pairs: number;
  /** Images that were copied byte by byte, and those that were made JPEGs or turned upright. */
  readonly copied: number;
  readonly converted: number;
  /** Images that should be in the data set, but cannot be. */
  readonly refused: readonly RefusedImage[];
  /** How many images of the project were not asked for, by their standing. */
  readonly left: Readonly<Partial<Record<PairStatus, number>>>;
}

/** What a data set consists of; a folder with anything else is not replaced. */
const files = { captions: "filter_cap.json", images: "image", provenance: "provenance.jsonl" } as const;

/** Nobody has written to a folder for so long: who began it was killed (milliseconds). */
const abandonedAfter = 120_000;

/**
 * Writes a data set that `openDataset` and the original project read. It is written beside `folder` and then takes its place: what was
 * there stays until the new one is whole, and nothing half-written is left if that fails.
 *
 * @throws Error if there is nothing to write, the folder is in use, or the disk is full; the signal's reason when it is aborted
 */
export async function exportPairs(
  store: CurationStore,
  folder: string,
  options: ExportOptions = {},
): Promise<ExportReport> {
  const { unreviewed = false, overwrite = false } = options;
  const target = resolve(folder);
  const entries = store.entries();
  const wanted: readonly PairStatus[] = unreviewed ? ["kept", "open"] : ["kept"];
  const chosen = entries.filter((entry) => wanted.includes(pairStatus(entry)));
  const left = countStandings(entries.filter((entry) => !chosen.includes(entry)));
  if (chosen.length === 0) throw new Error(nothingToExport(left));
  await finishReplacing(target);
  await refuseUnlessFree(target, overwrite, entries);

  const partial = temporaryPath(target);
  try {
    await mkdir(dirname(target), { recursive: true });
    await removeAbandoned(dirname(target), (name) => isTemporaryOf(target, name), { olderThan: abandonedAfter });
    const report = await writePairs(store, chosen, partial, options);
    await replaceFolder(target, partial, waiting(target));
    return { folder, ...report, left };
  } catch (error) {
    await rm(partial, { recursive: true, force: true });
    throw isDiskFull(error) ? new Error(`${folder}: the disk is full; nothing was exported`, { cause: error }) : error;
  }
}

async function writePairs(
  store: CurationStore,
  chosen: readonly Entry[],
  folder: string,
  { signal, onProgress }: ExportOptions,
): Promise<Omit<ExportReport, "folder" | "left">> {
  await mkdir(join(folder, files.images), { recursive: true });
  const annotations: { image_id: string; caption: string }[] = [];
  const origins: string[] = [];
  const refused: RefusedImage[] = [];
  let copied = 0;
  for (const [i, { image, current, persons, rules }] of chosen.entries()) {
    onProgress?.(i, chosen.length);
    signal?.throwIfAborted();
    const refuse = (reason: string) => refused.push({ image: image.id, name: image.name, reason });
    if (!current?.text.trim()) {
      refuse("its text is empty");
      continue;
    }
    let jpeg: { bytes: Uint8Array; isCopy: boolean };
    try {
      jpeg = await toJpeg(await imageBytes(image), image.name);
    } catch (cause) {
      refuse((cause as Error).message);
      continue;
    }
    const id = String(image.id);
    await writeDurably(join(folder, files.images, `${id}.jpg`), jpeg.bytes);
    if (jpeg.isCopy) copied++;
    annotations.push({ image_id: id, caption: current.text });
    const versions = store.versions(image.id).filter((version) => version.id <= current.id);
    origins.push(
      JSON.stringify(provenanceOf({ image, versions, persons, rules, exportedSha256: sha256Hex(jpeg.bytes) })),
    );
  }
  if (annotations.length === 0) {
    const [first] = refused;
    throw new Error(`None of ${chosen.length} images can be exported; the first, ${first?.name}: ${first?.reason}`);
  }
  signal?.throwIfAborted();
  await writeDurably(join(folder, files.captions), `${JSON.stringify({ annotations }, null, 1)}\n`);
  await writeDurably(join(folder, files.provenance), `${origins.join("\n")}\n`);
  onProgress?.(chosen.length, chosen.length);
  return { pairs: annotations.length, copied, converted: annotations.length - copied, refused };
}

/** Flushed to the disk; the whole folder takes its place later. */
function writeDurably(path: string, content: string | Uint8Array): Promise<void> {
  return writeFile(path, content, { flag: "wx", flush: true });
}

const ours: readonly string[] = Object.values(files);

/** @throws Error if the folder holds what may not be lost */
async function refuseUnlessFree(target: string, overwrite: boolean, entries: readonly Entry[]): Promise<void> {
  const names = await readdir(target).catch((error: NodeJS.ErrnoException) => {
    if (isMissing(error)) return [] as string[];
    throw error.code === "ENOTDIR" ? new Error(`${target} is a file; name a folder`) : error;
  });
  if (names.length === 0) return;
  const others = names.filter((name) => !ours.includes(name));
  if (others.length > 0 || !names.includes(files.captions)) {
    throw new Error(`${target} holds something else (${others[0] ?? names[0]}); name a folder that is not there yet`);
  }
  if (!overwrite) throw new Error(`${target} holds a data set already; --overwrite replaces it`);
  const folder = await realpath(target);
  for (const { image } of entries) {
    if (await isInside(image.source.path, folder)) {
      throw new Error(`${target} holds images of the project (${image.name}); export to another folder`);
    }
  }
}

/** Whether a file is there and lies in the folder, also if its path goes through links. @param folder without links */
async function isInside(path: string, folder: string): Promise<boolean> {
  const file = await realpath(path).catch(() => undefined);
  if (file === undefined) return false;
  const way = relative(folder, file);
  return !isAbsolute(way) && way !== ".." && !way.startsWith(`..${sep}`);
}

/** Where the folder that is replaced waits until the new one has its place. */
const waiting = (target: string) => `${target}.replaced`;

/**
 * What an export has left that was killed between the two renames, or right after them.
 * @throws Error if what lies there is not from an export
 */
async function finishReplacing(target: string): Promise<void> {
  if (!(await exists(waiting(target)))) return;
  const [other] = (await readdir(waiting(target))).filter((name) => !ours.includes(name));
  if (other !== undefined) {
    throw new Error(`${waiting(target)}, the place of what is replaced, holds something else (${other}); move it away`);
  }
  if (await exists(target)) await rm(waiting(target), { recursive: true, force: true });
  else await rename(waiting(target), target);
}

async function exists(path: string): Promise<boolean> {
  return (await stat(path).catch(() => undefined)) !== undefined;
}

function countStandings(entries: readonly Entry[]): Partial<Record<PairStatus, number>> {
  const counts: Partial<Record<PairStatus, number>> = {};
  for (const entry of entries) {
    const standing = pairStatus(entry);
    counts[standing] = (counts[standing] ?? 0) + 1;
  }
  return counts;
}

function nothingToExport({ open = 0, dropped = 0, empty = 0 }: ExportReport["left"]): string {
  const hint = open > 0 ? "; review them first, or take those that nobody has reviewed with --unreviewed" : "";
  return `There is nothing to export: of ${open + dropped + empty} images ${open} wait for review, ${dropped} are dropped and ${empty} have no text${hint}`;
}
