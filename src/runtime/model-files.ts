/** Where models are on their way to the engine. They are removed at once, unless the process is killed in between. */

import { randomUUID } from "node:crypto";
import { type FileHandle, mkdtemp, open, realpath, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { isAbsolute, join, relative, sep } from "node:path";
import { removeAbandoned } from "../files/atomic.ts";
import type { FileRange } from "../tensor/graph.ts";
import { type ExternalData, type ExternalRange, pageAfter } from "./onnx.ts";

// A file of large constants beside the models that use them. Models of one network share it: what has the same name is there once.

export class WeightsFile implements ExternalData {
  private readonly folder: string;
  private readonly location: string;
  private readonly file: FileHandle;
  private readonly places = new Map<string, ExternalRange>();
  private end = 0;

  private constructor(folder: string, location: string, file: FileHandle) {
    this.folder = folder;
    this.location = location;
    this.file = file;
  }

  /** @param location the file's name, which models in the same folder refer to */
  static async create(folder: string, location: string): Promise<WeightsFile> {
    return new WeightsFile(await realpath(folder), location, await open(join(folder, location), "w"));
  }

  async place(name: string, load: () => Promise<Uint8Array>, stored?: FileRange): Promise<ExternalRange> {
    const known = this.places.get(name) ?? (stored && (await placeBelow(this.folder, stored)));
    if (known) return known;
    const bytes = await load();
    const place = { location: this.location, offset: this.end, length: bytes.byteLength };
    for (let written = 0; written < bytes.byteLength; ) {
      const { bytesWritten } = await this.file.write(bytes, written, undefined, place.offset + written);
      written += bytesWritten;
    }
    this.end = pageAfter(place.offset + place.length);
    this.places.set(name, place);
    return place;
  }

  close(): Promise<void> {
    return this.file.close();
  }
}

/** How a model in `folder`, a real path, refers to bytes: the engine takes files in the folder and below, wherever links lead. */
export async function placeBelow(
  folder: string,
  { path, offset, length }: FileRange,
): Promise<ExternalRange | undefined> {
  const location = relative(folder, await realpath(path));
  if (isAbsolute(location) || location.split(sep)[0] === "..") return undefined;
  return { location: location.split(sep).join("/"), offset, length };
}

const prefix = "minigpt4-engine-";
/** Milliseconds after which nobody writes or loads a model any more. */
const abandonedAfter = 3_600_000;

/** A model that is being written, and its constants. */
export interface EnginePlace {
  readonly model: string;
  readonly weights: WeightsFile;
  /** Removes both. */
  remove(): Promise<void>;
}

/**
 * A place for a model: in a new folder, or beside the files that its constants lie in.
 * @param beside a folder; one that cannot be written to is not used
 */
export async function enginePlace(beside?: string): Promise<EnginePlace> {
  if (beside !== undefined) {
    const found = await placeBeside(beside).catch(() => undefined);
    if (found) return found;
  }
  const parent = tmpdir();
  await removeAbandoned(parent, (name) => name.startsWith(prefix), { olderThan: abandonedAfter });
  const folder = await mkdtemp(join(parent, prefix));
  const remove = () => rm(folder, { recursive: true, force: true, maxRetries: 3 });
  try {
    return { model: join(folder, "model.onnx"), weights: await WeightsFile.create(folder, "model.weights"), remove };
  } catch (error) {
    await remove();
    throw error;
  }
}

async function placeBeside(folder: string): Promise<EnginePlace> {
  const hidden = `.${prefix}`;
  await removeAbandoned(folder, (name) => name.startsWith(hidden), { olderThan: abandonedAfter });
  const name = `${hidden}${randomUUID()}`;
  const weights = await WeightsFile.create(folder, `${name}.weights`);
  const model = join(folder, `${name}.onnx`);
  return {
    model,
    weights,
    async remove() {
      for (const path of [model, join(folder, `${name}.weights`)]) await rm(path, { force: true, maxRetries: 3 });
    },
  };
}
