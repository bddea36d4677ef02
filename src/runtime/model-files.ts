/** Files of ONNX models: constants next to a model, and temporary model files, including those that killed processes left. */
import { randomUUID } from "node:crypto";
import { type FileHandle, mkdtemp, open, realpath, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { isAbsolute, join, relative, sep } from "node:path";
import { removeAbandoned } from "../files/atomic.ts";
import type { FileRange } from "../tensor/graph.ts";
import { type ExternalData, type ExternalRange, pageAfter } from "./onnx.ts";

/** A file of large constants next to the models that use it. Models can share it: a constant is written once per name. */
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

  /** Creates the file. @param location its name, by which models in the same folder refer to it */
  static async create(folder: string, location = "model.weights"): Promise<ConstantsFile> {
    return new ConstantsFile(await realpath(folder), location, await open(join(folder, location), "w"));
  }

  async place(name: string, load: () => Promise<Uint8Array>, stored?: FileRange): Promise<ExternalRange> {
    const existing = this.ranges.get(name) ?? (stored && (await rangeBelow(this.folder, stored)));
    if (existing) return existing;
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

/**
 * Converts a file range to one relative to a model in `folder` (a real path). Returns undefined for files outside of the folder, which the
 * runtime refuses to read.
 */
export async function rangeBelow(
  folder: string,
  { path, offset, length }: FileRange,
): Promise<ExternalRange | undefined> {
  const location = relative(folder, await realpath(path));
  if (isAbsolute(location) || location.split(sep)[0] === "..") return undefined;
  return { location: location.split(sep).join("/"), offset, length };
}

const prefix = "minigpt4-engine-";
/** Milliseconds; a process writes and loads a model in less time. */
const abandonedAfter = 3_600_000;

/** The files of a model to write. */
export interface ModelFiles {
  readonly model: string;
  readonly constants: ConstantsFile;
  /** Deletes the files. */
  remove(): Promise<void>;
}

/**
 * Creates temporary files for a model.
 * @param folder the folder that contains the model's stored constants; falls back to a new temporary folder if it is not writable
 */
export async function createModelFiles(folder?: string): Promise<ModelFiles> {
  if (folder !== undefined) {
    const files = await createIn(folder).catch(() => undefined);
    if (files) return files;
  }
  const parent = tmpdir();
  await removeAbandoned(parent, (name) => name.startsWith(prefix), { olderThan: abandonedAfter });
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
  await removeAbandoned(folder, (name) => name.startsWith(hidden), { olderThan: abandonedAfter });
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
