/** Files of models: their constants, and temporary folders that are removed when a model is loaded, or later if a process was killed. */
import { randomUUID } from "node:crypto";
import { type FileHandle, mkdtemp, open, readdir, realpath, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { isAbsolute, join, relative, sep } from "node:path";
import type { FileRange } from "../tensor/graph.ts";
import { type ExternalData, type ExternalRange, pageAfter } from "./onnx.ts";

/** A file of large constants next to the models that use it. Models of one network can share it: each name is written once. */
export class ConstantsFile implements ExternalData {
  private readonly folder: string;
  private readonly location: string;
  private readonly file: FileHandle;
  private readonly ranges = new Map<string, ExternalRange>();
  private end = 0;

  private constructor(folder: string, location: string, file: FileHandle) {
    this.folder = folder;
    this.location = location;
    this.file = file;
  }

  /** @param location name of the file, which models in the same folder refer to */
  static async create(folder: string, location = "model.weights"): Promise<ConstantsFile> {
    return new ConstantsFile(await realpath(folder), location, await open(join(folder, location), "w"));
  }

  async place(name: string, load: () => Promise<Uint8Array>, stored?: FileRange): Promise<ExternalRange> {
    const known = this.ranges.get(name) ?? (stored && (await rangeBelow(this.folder, stored)));
    if (known) return known;
    const bytes = await load();
    const range = { location: this.location, offset: this.end, length: bytes.byteLength };
    for (let written = 0; written < bytes.byteLength; ) {
      const { bytesWritten } = await this.file.write(bytes, written, undefined, range.offset + written);
      written += bytesWritten;
    }
    this.end = pageAfter(range.offset + range.length);
    this.ranges.set(name, range);
    return range;
  }

  close(): Promise<void> {
    return this.file.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/** The range as a model in `folder`, a real path, refers to it; undefined outside, as the runtime reads only files in the folder and below. */
export async function rangeBelow(
  folder: string,
  { path, offset, length }: FileRange,
): Promise<ExternalRange | undefined> {
  const location = relative(folder, await realpath(path));
  if (isAbsolute(location) || location.split(sep)[0] === "..") return undefined;
  return { location: location.split(sep).join("/"), offset, length };
}

const prefix = "minigpt4-engine-";
/** Age in milliseconds after which no process writes or loads a model any more. */
const abandonedAfter = 3_600_000;

/** Paths of a model that is to be written, and its constants. */
export interface ModelFiles {
  readonly model: string;
  readonly constants: ConstantsFile;
  /** Removes both. */
  remove(): Promise<void>;
}

/**
 * Temporary files for a model.
 * @param folder a folder that the model's constants lie in; a new one is used if it is not writable
 */
export async function createModelFiles(folder?: string): Promise<ModelFiles> {
  if (folder !== undefined) {
    const found = await createIn(folder).catch(() => undefined);
    if (found) return found;
  }
  const parent = tmpdir();
  await removeAbandoned(parent, prefix);
  const created = await mkdtemp(join(parent, prefix));
  const remove = () => rm(created, { recursive: true, force: true, maxRetries: 3 });
  try {
    return { model: join(created, "model.onnx"), constants: await ConstantsFile.create(created), remove };
  } catch (error) {
    await remove();
    throw error;
  }
}

async function createIn(folder: string): Promise<ModelFiles> {
  const hidden = `.${prefix}`;
  await removeAbandoned(folder, hidden);
  const name = `${hidden}${randomUUID()}`;
  const constants = await ConstantsFile.create(folder, `${name}.weights`);
  const model = join(folder, `${name}.onnx`);
  return {
    model,
    constants,
    async remove() {
      for (const path of [model, join(folder, `${name}.weights`)]) await rm(path, { force: true, maxRetries: 3 });
    },
  };
}

/** Removes what killed processes left, which may be as large as a language model. */
async function removeAbandoned(parent: string, begin: string): Promise<void> {
  for (const name of (await readdir(parent)).filter((found) => found.startsWith(begin))) {
    const path = join(parent, name);
    const status = await stat(path).catch(() => undefined);
    const isAbandoned = status && Date.now() - status.mtimeMs > abandonedAfter;
    // Another user's cannot be removed, nor, on Windows, what is in use.
    if (isAbandoned) await rm(path, { recursive: true, force: true }).catch(() => {});
  }
}
