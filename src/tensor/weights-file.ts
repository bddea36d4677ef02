/** A file of large constants beside the models that use them. Models of one network share it: what has the same name is there once. */
import { type FileHandle, open } from "node:fs/promises";
import { join } from "node:path";
import { type ExternalData, type Place, pageAfter } from "./onnx.ts";

export class WeightsFile implements ExternalData {
  readonly location: string;
  private readonly file: FileHandle;
  private readonly places = new Map<string, Place>();
  private end = 0;

  private constructor(location: string, file: FileHandle) {
    this.location = location;
    this.file = file;
  }

  /** @param location the file's name, which models in the same folder refer to */
  static async create(folder: string, location: string): Promise<WeightsFile> {
    return new WeightsFile(location, await open(join(folder, location), "w"));
  }

  async place(name: string, load: () => Promise<Uint8Array>): Promise<Place> {
    const known = this.places.get(name);
    if (known) return known;
    const bytes = await load();
    const place = { offset: this.end, length: bytes.byteLength };
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
