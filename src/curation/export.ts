/** Exports the pairs of a project as a dataset for the second stage: `filter_cap.json`, `image/ID.jpg`, and `provenance.jsonl`. */
import { mkdir, readdir, realpath, rename, rm, stat, writeFile } from "node:fs/promises";
import { dirname, isAbsolute, join, relative, resolve, sep } from "node:path";
import { isTemporaryOf, removeAbandoned, replaceFolder, temporaryPath } from "../files/atomic.ts";
import { sha256Hex } from "../files/digest.ts";
import { isDiskFull, isMissing } from "../files/errors.ts";
import { type PairStatus, pairStatus } from "./decisions.ts";
import type { Entry, ProjectImage, Version } from "./entry.ts";
import { imageBytes, toJpeg } from "./images.ts";
import type { CurationStore } from "./store.ts";

/** The origin of an exported pair. */
interface Origin extends Pick<Entry, "persons" | "rules"> {
  readonly image: ProjectImage;
  /** All versions of the text, oldest first; the last one is exported. */
  readonly versions: readonly Version[];
  readonly exportedSha256: string;
}

/** A line of `provenance.jsonl`. Versions are numbered from 1. The path of the image is left out, since it may be private. */
function provenanceLine({ image, versions, persons, rules, exportedSha256 }: Origin) {
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
      // Number of the edit that this version reverts; its text is not by this author.
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
  /** Also export pairs that no one has reviewed and no rule drops. @default false */
  readonly unreviewed?: boolean;
  /** Replace a dataset in the folder. @default false */
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
  /** Images that were copied byte by byte, and those that were converted to JPEG or rotated. */
  readonly copied: number;
  readonly converted: number;
  /** Images that could not be exported. */
  readonly refused: readonly RefusedImage[];
  /** Number of images that were not selected, by status. */
  readonly left: Readonly<Partial<Record<PairStatus, number>>>;
}

/** The files of an exported dataset; a folder with other files is never replaced. */
const files = { captions: "filter_cap.json", images: "image", provenance: "provenance.jsonl" } as const;

/** A temporary folder that was not written to for this long belongs to a killed export (milliseconds). */
const abandonedAfter = 120_000;

/**
 * Writes a dataset that `openDataset` and the Python original read. It is written to a temporary folder and renamed when it is complete,
 * so an existing dataset stays until then, and a failed export leaves nothing behind.
 *
 * @throws Error if there is nothing to export, the folder contains other files, or the disk is full; the signal's reason on abort
 */
export async function exportPairs(
  store: CurationStore,
  folder: string,
  options: ExportOptions = {},
): Promise<ExportReport> {
  const { unreviewed = false, overwrite = false } = options;
  const target = resolve(folder);
  const entries = store.entries();
  const exported: readonly PairStatus[] = unreviewed ? ["kept", "open"] : ["kept"];
  const chosen = entries.filter((entry) => exported.includes(pairStatus(entry)));
  const left = countStatuses(entries.filter((entry) => !chosen.includes(entry)));
  if (chosen.length === 0) throw new Error(nothingToExport(left));
  await finishReplacing(target);
  await refuseUnlessFree(target, overwrite, entries);

  const partial = temporaryPath(target);
  try {
    await mkdir(dirname(target), { recursive: true });
    await removeAbandoned(dirname(target), (name) => isTemporaryOf(target, name), { olderThan: abandonedAfter });
    const report = await writePairs(store, chosen, partial, options);
    await replaceFolder(target, partial, replacedPath(target));
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
      refuse("the text is empty");
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
      JSON.stringify(provenanceLine({ image, versions, persons, rules, exportedSha256: sha256Hex(jpeg.bytes) })),
    );
  }
  if (annotations.length === 0) {
    const [first] = refused;
    throw new Error(
      `None of the ${chosen.length} images can be exported; first problem: ${first?.name}: ${first?.reason}`,
    );
  }
  signal?.throwIfAborted();
  await writeDurably(join(folder, files.captions), `${JSON.stringify({ annotations }, null, 1)}\n`);
  await writeDurably(join(folder, files.provenance), `${origins.join("\n")}\n`);
  onProgress?.(chosen.length, chosen.length);
  return { pairs: annotations.length, copied, converted: annotations.length - copied, refused };
}

/** Writes and flushes a new file. */
function writeDurably(path: string, content: string | Uint8Array): Promise<void> {
  return writeFile(path, content, { flag: "wx", flush: true });
}

const ownNames: readonly string[] = Object.values(files);

/** @throws Error if the folder contains anything that must not be replaced */
async function refuseUnlessFree(target: string, overwrite: boolean, entries: readonly Entry[]): Promise<void> {
  const names = await readdir(target).catch((error: NodeJS.ErrnoException) => {
    if (isMissing(error)) return [] as string[];
    throw error.code === "ENOTDIR" ? new Error(`${target} is a file; choose a folder`) : error;
  });
  if (names.length === 0) return;
  const others = names.filter((name) => !ownNames.includes(name));
  if (others.length > 0 || !names.includes(files.captions)) {
    throw new Error(`${target} contains other files (${others[0] ?? names[0]}); choose a folder that does not exist`);
  }
  if (!overwrite) throw new Error(`${target} already contains a dataset; pass --overwrite to replace it`);
  const folder = await realpath(target);
  for (const { image } of entries) {
    if (await isInside(image.source.path, folder)) {
      throw new Error(`${target} contains images of the project (${image.name}); choose another folder`);
    }
  }
}

/** Whether a file exists and is in the folder, after resolving links. @param folder real path */
async function isInside(name: string, folder: string): Promise<boolean> {
  const file = await realpath(name).catch(() => undefined);
  if (file === undefined) return false;
  const path = relative(folder, file);
  return !isAbsolute(path) && path !== ".." && !path.startsWith(`..${sep}`);
}

/** Where the old dataset is until the new one is renamed. */
const replacedPath = (target: string) => `${target}.replaced`;

/**
 * Cleans up after an export that was killed between or right after the two renames.
 *
 * @throws Error if the folder of the old dataset contains other files
 */
async function finishReplacing(target: string): Promise<void> {
  if (!(await exists(replacedPath(target)))) return;
  const [other] = (await readdir(replacedPath(target))).filter((name) => !ownNames.includes(name));
  if (other !== undefined) {
    throw new Error(
      `${replacedPath(target)} is needed to replace ${target}, but contains other files (${other}); move it away`,
    );
  }
  if (await exists(target)) await rm(replacedPath(target), { recursive: true, force: true });
  else await rename(replacedPath(target), target);
}

async function exists(path: string): Promise<boolean> {
  return (await stat(path).catch(() => undefined)) !== undefined;
}

function countStatuses(entries: readonly Entry[]): Partial<Record<PairStatus, number>> {
  const counts: Partial<Record<PairStatus, number>> = {};
  for (const entry of entries) {
    const status = pairStatus(entry);
    counts[status] = (counts[status] ?? 0) + 1;
  }
  return counts;
}

function nothingToExport({ open = 0, dropped = 0, empty = 0 }: ExportReport["left"]): string {
  const hint = open > 0 ? "; review them, or pass --unreviewed to export unreviewed pairs" : "";
  return `Nothing to export: of ${open + dropped + empty} images ${open} are not reviewed, ${dropped} are dropped and ${empty} have no text${hint}`;
}
