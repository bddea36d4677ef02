/** `pull` of a released MiniGPT-4: downloads its files, imports them into a model folder, and deletes them. */
import { existsSync } from "node:fs";
import { mkdir, readdir, realpath, rm, rmdir, stat, utimes } from "node:fs/promises";
import { basename, dirname, join, resolve, sep } from "node:path";
import { cacheFolder } from "../files/cache-folder.ts";
import { checkDiskSpace, type JournalContents, readJournal } from "../files/journal.ts";
import { openCheckpoint } from "../formats/open.ts";
import { explainFailure } from "../hub/download.ts";
import type { PullProgress } from "../hub/pull.ts";
import { fetchRemote, remainingBytes } from "../hub/remote-file.ts";
import { openLlama } from "../models/llama-folder.ts";
import { supportsMappedInt8 } from "../runtime/session.ts";
import { withCurrentQuantization } from "../tensor/quant/quantization.ts";
import { describeOrigin } from "./delta.ts";
import { type ImportOptions, importJournal, importModel } from "./import.ts";
import type { ImportQuantization } from "./import-plan.ts";
import { expectPart, type Heads, type PartKind, partKinds, type SourcePaths } from "./import-sources.ts";
import { type ReleasedKind, type ReleasedModel, releasedFiles, releasedFolder } from "./released.ts";
import {
  findCompleteParts,
  locatePart,
  partPaths,
  type ReleasedFile,
  type ReleasedOptions,
  recordFiles,
} from "./released-files.ts";

/** Options of `pullReleased`. Parts with a path are not downloaded; heads are needed only for parts with other dimensions than the released ones. */
export interface PullReleasedOptions extends ReleasedOptions, Partial<SourcePaths>, Heads {
  /** Quantization of the language model; a GGUF file keeps its own. @default "int4" */
  readonly quantization?: ImportQuantization;
  /** As in `importModel`. */
  readonly prefill?: boolean;
  /** The new model folder; by default in the cache, where the model is found by its name. */
  readonly out?: string;
  /** Keeps the released files in the cache after the import. @default false */
  readonly keepFiles?: boolean;
  /** @default cacheFolder() */
  readonly cacheFolder?: string;
  /** Called with the plan before it starts. */
  readonly onPlan?: (plan: PullPlan) => void;
  readonly onFetch?: (progress: PullProgress) => void;
  /** Progress in bytes of the steps after a download. */
  readonly onStep?: (step: string, done: number, total: number) => void;
}

export interface PullPlan {
  readonly out: string;
  /** The files to download, in this order. */
  readonly files: readonly ReleasedFile[];
  /** Bytes that are not downloaded yet. */
  readonly missing: number;
  /** Estimated size of the model folder in bytes. */
  readonly folder: number;
}

export interface Pulled {
  readonly path: string;
  /** Size of all weight files in bytes. */
  readonly bytes: number;
  /** Downloaded bytes; 0 if the model already existed. */
  readonly fetched: number;
  /** The folder with the released files, if it is kept. */
  readonly files?: string;
}

/** Approximate size of the folder relative to the language model's files, which have 16 bits per value. */
const shares: Readonly<Record<ReleasedKind, number>> = { int4: 0.29, int8: 0.55, float16: 1, float32: 1, gguf: 1 };
/** Additional share of the int8 layers for prefill. */
const prefillShare = 0.5;

/**
 * Downloads the files of a released model and imports them. An interrupted pull resumes when it is called again.
 * @throws Error before the first download, if a server refuses a file, the disk is too small, a passed part is not the one its
 *   option expects, or the folder contains something else
 */
export async function pullReleased(model: ReleasedModel, options: PullReleasedOptions): Promise<Pulled> {
  const { cacheFolder: cache = cacheFolder(), keepFiles } = options;
  const kind: ReleasedKind =
    options.llm !== undefined && (await isFile(options.llm)) ? "gguf" : (options.quantization ?? "int4");
  const out = resolve(options.out ?? releasedFolder(cache, model.name, kind));
  const downloadFolder = releasedFiles(cache, model.name);
  const parts = partPaths(model.parts, downloadFolder, options);

  const earlier = await inspectFolder(out, { kind, parts, givenPaths: options });
  if (earlier.isComplete) {
    return {
      path: out,
      bytes: earlier.bytes,
      fetched: 0,
      files: existsSync(downloadFolder) ? downloadFolder : undefined,
    };
  }
  await checkGivenParts(options);

  const files = await findFiles(model, downloadFolder, options);
  const target = ({ name }: ReleasedFile) => join(downloadFolder, name);
  let missing = 0;
  for (const file of files) missing += await remainingBytes(file, target(file));
  const folder = await folderBytes(files, options, kind);
  options.onPlan?.({ out, files, missing, folder });
  await checkFreeSpace([cache, missing], [out, folder - earlier.bytes]);

  if (files.length > 0) {
    await mkdir(downloadFolder, { recursive: true });
    await recordFiles(downloadFolder, files);
  }
  for (const file of files) await fetchFile(file, target(file), options);
  const bytes = await importParts({ ...options, ...parts, out, onProgress: options.onStep });
  if (!keepFiles) await removeAll(downloadFolder, options);
  return { path: out, bytes, fetched: missing, files: existsSync(downloadFolder) ? downloadFolder : undefined };
}

/** Lists the files to download; servers are queried only for parts that are not complete. */
async function findFiles(
  model: ReleasedModel,
  downloadFolder: string,
  options: PullReleasedOptions,
): Promise<ReleasedFile[]> {
  const complete = await findCompleteParts(downloadFolder);
  const files: ReleasedFile[] = [];
  for (const part of partKinds) {
    if (options[part] !== undefined) continue;
    files.push(...(complete.get(part) ?? (await locatePart(part, model.parts[part], options))));
  }
  return files;
}

/** Imports the parts. @returns the size of the folder in bytes */
async function importParts(options: ImportOptions): Promise<number> {
  try {
    return (await importModel(options)).bytes;
  } catch (error) {
    // The error of an aborted stream does not contain the reason.
    options.signal?.throwIfAborted();
    throw error;
  }
}

/** Removes the downloaded files, except those that the user passed. */
async function removeAll(downloadFolder: string, options: PullReleasedOptions): Promise<void> {
  const named = partKinds.flatMap((part) => options[part] ?? []);
  const kept = await Promise.all(named.map((path) => realpath(path)));
  for (const name of await readdir(downloadFolder).catch(() => [])) {
    const path = await realpath(join(downloadFolder, name));
    if (kept.some((other) => other === path || other.startsWith(path + sep))) continue;
    await rm(join(downloadFolder, name), { recursive: true, force: true, maxRetries: 3 });
  }
  await rmdir(downloadFolder).catch(() => undefined);
}

/** From this size on, checking a file reports progress. */
const largeFile = 2 ** 27;

async function fetchFile(file: ReleasedFile, target: string, options: PullReleasedOptions): Promise<void> {
  const { name, bytes, digest, part } = file;
  try {
    await fetchRemote(file, target, {
      signal: options.signal,
      onProgress: (received) => options.onFetch?.({ file: name, received, total: bytes }),
      onChecked: (done) => bytes >= largeFile && options.onStep?.(`Checking ${name}`, done, bytes),
    });
    // An import identifies its files by name, size and time, so the time is derived from the content.
    const time = digest && Number.parseInt(digest.hex.slice(0, 7), 16);
    if (time !== undefined) await utimes(target, time, time);
  } catch (error) {
    options.signal?.throwIfAborted();
    const advice = `Run the same command again to resume it, or pass your own copy with --${part}`;
    throw new Error(`cannot download ${name}: ${explainFailure(error)}. ${advice}`, { cause: error });
  }
}

/** Checks the parts that the user passed. @throws Error naming the file if it is not the part that its option expects */
async function checkGivenParts(options: PullReleasedOptions): Promise<void> {
  for (const part of partKinds) {
    const path = options[part];
    if (path === undefined) continue;
    const checkpoint = part === "llm" ? (await openLlama(path)).checkpoint : await openCheckpoint(path);
    try {
      expectPart(checkpoint, part);
      if (checkpoint.format === "gguf" && options.quantization) {
        throw new Error(`${path}: a GGUF file keeps the quantization that it is stored in; omit --quantization`);
      }
    } finally {
      await checkpoint.close();
    }
  }
}

async function folderBytes(
  files: readonly ReleasedFile[],
  options: PullReleasedOptions,
  kind: ReleasedKind,
): Promise<number> {
  const { prefill = supportsMappedInt8("cpu") } = options;
  const llmShare = shares[kind] + (prefill && (kind === "int4" || kind === "int8") ? prefillShare : 0);
  let bytes = 0;
  for (const file of files) bytes += file.bytes * (file.part === "llm" ? llmShare : 1);
  for (const part of partKinds) {
    const path = options[part];
    if (path !== undefined) bytes += (await describeOrigin(path)).bytes * (part === "llm" ? llmShare : 1);
  }
  return Math.round(bytes);
}

type Need = readonly [folder: string, bytes: number];

/** Checks that the disks have space for the downloads and, at the same time, the model folder. @throws Error if not */
async function checkFreeSpace(files: Need, folder: Need): Promise<void> {
  const [one, other] = [findExisting(files[0]), findExisting(folder[0])];
  const isOneDisk = (await stat(one)).dev === (await stat(other)).dev;
  await checkDiskSpace(one, files[1] + (isOneDisk ? folder[1] : 0));
  if (!isOneDisk) await checkDiskSpace(other, folder[1]);
}

/** The folder, or its nearest parent that exists. */
function findExisting(folder: string): string {
  if (existsSync(folder) || dirname(folder) === folder) return folder;
  return findExisting(dirname(folder));
}

async function isFile(path: string): Promise<boolean> {
  return (await stat(path).catch(() => undefined))?.isFile() === true;
}

/** What a pull creates. */
interface PullTarget {
  readonly kind: ReleasedKind;
  /** Paths of the parts. */
  readonly parts: Readonly<Record<PartKind, string>>;
  /** Paths that the user passed. */
  readonly givenPaths: Partial<Record<PartKind, string>>;
}

interface PulledFolder {
  /** Whether all of its files exist. */
  readonly isComplete: boolean;
  /** Size of the finished weight files in bytes. */
  readonly bytes: number;
}

/**
 * Inspects the target folder of a pull.
 * @throws Error if the folder contains something else
 */
async function inspectFolder(path: string, target: PullTarget): Promise<PulledFolder> {
  const journal = await readJournal(join(path, importJournal));
  if (!journal) {
    if (existsSync(path) && (await readdir(path)).length > 0) {
      throw new Error(`${path} is not empty; choose another folder with --out, or delete its contents`);
    }
    return { isComplete: false, bytes: 0 };
  }
  const different = await findDifference(journal, target);
  if (different) {
    throw new Error(`${path} was made with another ${different}; choose another folder with --out, or delete it`);
  }
  const bytes = Object.values(journal.files).reduce((sum, file) => sum + file.bytes, 0);
  return { isComplete: await isComplete(path, journal), bytes };
}

/** The first option or part in which a folder differs from the requested one. Downloaded files are compared by name. */
async function findDifference(
  { work }: JournalContents,
  { kind, parts, givenPaths }: PullTarget,
): Promise<string | undefined> {
  const { quantization } = withCurrentQuantization(work) as { readonly quantization?: unknown };
  if (quantization !== (kind === "gguf" ? "native" : kind)) return "quantization";
  for (const part of partKinds) {
    const had = work[part] as { readonly name?: unknown } | undefined;
    const isSame =
      givenPaths[part] === undefined
        ? had?.name === basename(parts[part])
        : JSON.stringify(had) === JSON.stringify(await describeOrigin(parts[part]));
    if (!isSame) return part;
  }
  return undefined;
}

async function isComplete(path: string, { finished, files }: JournalContents): Promise<boolean> {
  if (!finished || !existsSync(join(path, "config.json"))) return false;
  for (const [name, { bytes }] of Object.entries(files)) {
    if ((await stat(join(path, name)).catch(() => undefined))?.size !== bytes) return false;
  }
  return true;
}
