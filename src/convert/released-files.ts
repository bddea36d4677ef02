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
  /** Another address for what lies on Google's storage. */
  readonly storageUrl?: string;
}

export interface ReleasedFile extends RemoteFile {
  readonly part: PartKind;
  /** Below the folder in which a model's files are gathered, with `/`. */
  readonly name: string;
  readonly license: string;
}

/** Where a part lies below the folder of a model's files: a file, or the folder of a language model. */
function partPath({ source }: ReleasedPart): string {
  return basename(source.kind === "hub-folder" ? source.repo : source.path);
}

/**
 * Asks the server for the files of a part.
 * @throws Error saying where it should be, and which option takes it from elsewhere
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

/** Files by their names. */
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

/** Of a language model's repository, what is needed: weights in one form, safetensors rather than torch's, and the small files. */
function modelFiles(repo: string, listed: ReadonlyMap<string, RemoteFile>): Map<string, RemoteFile> {
  const weights = [
    /^model(-\d+-of-\d+)?\.safetensors$|^model\.safetensors\.index\.json$/,
    /^pytorch_model(-\d+-of-\d+)?\.bin$|^pytorch_model\.bin\.index\.json$/,
  ].map((pattern) => [...listed].filter(([name]) => pattern.test(name)));
  const form = weights.find((files) => files.length > 0);
  if (!form) throw new Error(`https://huggingface.co/${repo} has no weights`);
  return new Map([...[...listed].filter(([name]) => smallFiles.includes(name)), ...form]);
}

/** Where the parts lie on this disk: what the user brought, else where they are gathered. */
export function partPaths(
  parts: Readonly<Record<PartKind, ReleasedPart>>,
  downloadFolder: string,
  givenPaths: Partial<Record<PartKind, string | undefined>>,
): Record<PartKind, string> {
  const place = (part: PartKind) => givenPaths[part] ?? join(downloadFolder, partPath(parts[part]));
  return { vit: place("vit"), qformer: place("qformer"), projection: place("projection"), llm: place("llm") };
}

// A record of a released model's files beside them: a part that is complete needs no server any more.

const record = "files.json";
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

/** Writes down what belongs into a folder, which must exist. */
export async function recordFiles(folder: string, files: readonly ReleasedFile[]): Promise<void> {
  await writeJsonFile(join(folder, record), files);
}

/** The files of the parts of which all are there. */
export async function completeParts(folder: string): Promise<Map<PartKind, ReleasedFile[]>> {
  const parts = new Map<PartKind, ReleasedFile[]>();
  for (const file of await readRecord(join(folder, record))) {
    parts.set(file.part, [...(parts.get(file.part) ?? []), file]);
  }
  for (const [part, files] of parts) {
    for (const file of files) if (!(await isDownloaded(file, join(folder, file.name)))) parts.delete(part);
  }
  return parts;
}

/** No record, or a damaged one, tells of no files: the servers are asked then. */
async function readRecord(path: string): Promise<ReleasedFile[]> {
  return readJsonFile(path, schema).catch(() => []);
}
