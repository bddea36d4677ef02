/** Lists the files of a released model: names, sizes and digests, as published by their servers. */

import { basename, join } from "node:path";
import { z } from "zod";
import { readJsonFile, writeJsonFile } from "../files/json-file.ts";
import { explainFailure } from "../hub/download.ts";
import { describeUrl, isDownloaded, listHubFiles, type RemoteFile, type RemoteOptions } from "../hub/remote-file.ts";
import { smallFiles } from "../models/llama-folder.ts";
import { type PartKind, partKinds } from "./import-sources.ts";
import type { PartSource, ReleasedPart } from "./released.ts";

export interface ReleasedOptions extends RemoteOptions {
  /** Base URL of the files in Google Cloud Storage. @default "https://storage.googleapis.com" */
  readonly storageUrl?: string;
}

export interface ReleasedFile extends RemoteFile {
  readonly part: PartKind;
  /** Path in the download folder, with `/`. */
  readonly name: string;
  readonly license: string;
}

/** Path of a part in the download folder: a file, or the folder of a language model. */
function partPath({ source }: ReleasedPart): string {
  return basename(source.kind === "hub-folder" ? source.repo : source.path);
}

/**
 * Requests the list of a part's files from its server.
 * @throws Error with the URL, and the option for a local copy
 */
export async function locatePart(
  part: PartKind,
  released: ReleasedPart,
  options: ReleasedOptions,
): Promise<ReleasedFile[]> {
  try {
    const files = await findFiles(released.source, options);
    const folder = released.source.kind === "hub-folder" ? `${partPath(released)}/` : "";
    return [...files].map(([name, file]) => ({ ...file, part, name: `${folder}${name}`, license: released.license }));
  } catch (error) {
    options.signal?.throwIfAborted();
    throw new Error(`${partPath(released)}: ${explainFailure(error)}. To use your own copy, pass it with --${part}`, {
      cause: error,
    });
  }
}

/** The files of a source by name. */
async function findFiles(source: PartSource, options: ReleasedOptions): Promise<Map<string, RemoteFile>> {
  const { storageUrl = "https://storage.googleapis.com" } = options;
  if (source.kind === "storage") {
    return new Map([[basename(source.path), await describeUrl(`${storageUrl}/${source.path}`, options)]]);
  }
  const listed = await listHubFiles(source.repo, options);
  if (source.kind === "hub-folder") return modelFiles(source.repo, listed);
  const file = listed.get(source.path);
  if (!file) throw new Error(`https://huggingface.co/${source.repo} has no file ${source.path} (any more)`);
  return new Map([[source.path, file]]);
}

/** The files of a repository to download: weights in one format (safetensors preferred), and configuration and tokenizer. */
function modelFiles(repo: string, listed: ReadonlyMap<string, RemoteFile>): Map<string, RemoteFile> {
  const weights = [
    /^model(-\d+-of-\d+)?\.safetensors$|^model\.safetensors\.index\.json$/,
    /^pytorch_model(-\d+-of-\d+)?\.bin$|^pytorch_model\.bin\.index\.json$/,
  ].map((pattern) => [...listed].filter(([name]) => pattern.test(name)));
  const format = weights.find((files) => files.length > 0);
  if (!format) throw new Error(`https://huggingface.co/${repo} has no weights`);
  return new Map([...[...listed].filter(([name]) => smallFiles.includes(name)), ...format]);
}

/** Local paths of the parts: those that the user passed, else in the download folder. */
export function partPaths(
  parts: Readonly<Record<PartKind, ReleasedPart>>,
  downloadFolder: string,
  givenPaths: Partial<Record<PartKind, string>>,
): Record<PartKind, string> {
  const path = (part: PartKind) => givenPaths[part] ?? join(downloadFolder, partPath(parts[part]));
  return { vit: path("vit"), qformer: path("qformer"), projection: path("projection"), llm: path("llm") };
}

/** Lists the files of a model's parts, so that complete parts need no request. */
const recordFile = "files.json";
const schema = z.array(
  z.object({
    part: z.enum(partKinds),
    name: z.string(),
    url: z.string(),
    license: z.string(),
    bytes: z.number(),
    digest: z.object({ algorithm: z.enum(["sha256", "md5", "git-blob"]), hex: z.string() }).optional(),
  }),
);

/** Records the files of a download folder, which must exist. */
export async function recordFiles(folder: string, files: readonly ReleasedFile[]): Promise<void> {
  await writeJsonFile(join(folder, recordFile), files);
}

/** The recorded files of parts that are downloaded completely. */
export async function findCompleteParts(folder: string): Promise<Map<PartKind, ReleasedFile[]>> {
  const parts = new Map<PartKind, ReleasedFile[]>();
  for (const file of await readRecord(join(folder, recordFile))) {
    parts.set(file.part, [...(parts.get(file.part) ?? []), file]);
  }
  for (const [part, files] of parts) {
    for (const file of files) if (!(await isDownloaded(file, join(folder, file.name)))) parts.delete(part);
  }
  return parts;
}

/** A missing or damaged record counts as empty, so that the servers are queried. */
async function readRecord(path: string): Promise<ReleasedFile[]> {
  return readJsonFile(path, schema).catch(() => []);
}
