/** Adds a data set's pictures to a project. */
import { resolve } from "node:path";
import type { ImageTextPair, Problem } from "../data/dataset.ts";
import { readSpan } from "../data/file-span.ts";
import type { NewPicture } from "./entry.ts";
import { sha256Of } from "./picture-bytes.ts";
import type { CurationStore } from "./store.ts";

export interface AddReport {
  readonly added: number;
  /** Were in the project before. */
  readonly known: number;
  /** Have the bytes of another one of those given; such a picture is taken once. */
  readonly duplicates: number;
  /** Their bytes cannot be read, so that they are not in the project. */
  readonly unreadable: readonly Problem[];
}

export interface AddOptions {
  readonly onProgress?: (done: number, total: number) => void;
  readonly signal?: AbortSignal;
}

/** Adds the pictures all at once: when this is stopped before its end, none is in the project. */
export async function addPictures(
  store: CurationStore,
  pairs: readonly ImageTextPair[],
  { onProgress, signal }: AddOptions = {},
): Promise<AddReport> {
  const pictures = new Map<string, NewPicture>();
  const unreadable: Problem[] = [];
  for (const [i, { name, picture }] of pairs.entries()) {
    signal?.throwIfAborted();
    try {
      const sha256 = sha256Of(await readSpan(picture));
      // A project is worked on from any folder.
      const source = { ...picture, path: resolve(picture.path) };
      if (!pictures.has(sha256)) pictures.set(sha256, { name, source, sha256 });
    } catch (error) {
      unreadable.push({ name, reason: (error as Error).message });
    }
    onProgress?.(i + 1, pairs.length);
  }
  const added = store.addPictures([...pictures.values()]);
  return {
    added,
    known: pictures.size - added,
    duplicates: pairs.length - unreadable.length - pictures.size,
    unreadable,
  };
}
