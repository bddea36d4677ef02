/** A file of large constants beside the models that use them. Models of one network share it: what has the same name is there once. */
import { type FileHandle, open, realpath } from "node:fs/promises";
import { isAbsolute, join, relative, sep } from "node:path";
import type { StoredBytes } from "./graph.ts";
import { type ExternalData, type Place, pageAfter } from "./onnx.ts";

export class WeightsFile implements ExternalData {
  private readonly folder: string;
  private readonly location: string;
  private readonly file: FileHandle;
  private readonly places = new Map<string, Place>();
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

  async place(name: string, load: () => Promise<Uint8Array>, stored?: StoredBytes): Promise<Place> {
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
export async function placeBelow(folder: string, { path, offset, length }: StoredBytes): Promise<Place | undefined> {
  const location = relative(folder, await realpath(path));
  if (isAbsolute(location) || location.split(sep)[0] === "..") return undefined;
  return { location: location.split(sep).join("/"), offset, length };
}
