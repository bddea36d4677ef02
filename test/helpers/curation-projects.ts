/** Curation projects for tests. */
import { createHash } from "node:crypto";
import { join } from "node:path";
import { onTestFinished } from "vitest";
import type { NewPicture } from "../../src/curation/entry.ts";
import { CurationStore } from "../../src/curation/store.ts";

/** Opens a project in a folder, which is closed after the test. */
export function openProject(folder: string, name = "project.db"): CurationStore {
  const store = CurationStore.open(join(folder, name), { create: true });
  onTestFinished(() => store.close());
  return store;
}

/** Pictures that are no files. */
export function somePictures(count: number): NewPicture[] {
  return Array.from({ length: count }, (_, i) => ({
    name: `${i}.jpg`,
    source: { path: `/pictures/${i}.jpg` },
    sha256: createHash("sha256").update(`${i}`).digest("hex"),
  }));
}

/** Adds a picture with a described text. @returns ids of the picture and of the version */
export function described(store: CurationStore, text: string, index = 0): { picture: number; version: number } {
  store.addPictures(somePictures(index + 1).slice(-1));
  const picture = store.entries().at(-1)?.picture.id ?? 0;
  return { picture, version: store.addVersion({ picture, kind: "described", text, author: "nano" }).id };
}
