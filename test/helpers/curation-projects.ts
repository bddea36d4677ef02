/** Curation projects for tests. */
import { createHash } from "node:crypto";
import { join } from "node:path";
import { onTestFinished } from "vitest";
import type { NewImage } from "../../src/curation/entry.ts";
import { CurationStore } from "../../src/curation/store.ts";

/** Opens a project in a folder, which is closed after the test. */
export function openProject(folder: string, name = "project.db"): CurationStore {
  const store = CurationStore.open(join(folder, name), { create: true });
  onTestFinished(() => store.close());
  return store;
}

/** Images that are no files. */
export function someImages(count: number): NewImage[] {
  return Array.from({ length: count }, (_, i) => ({
    name: `${i}.jpg`,
    source: { path: `/images/${i}.jpg` },
    sha256: createHash("sha256").update(`${i}`).digest("hex"),
  }));
}

/** Adds an image with a described text. @returns ids of the image and of the version */
export function described(store: CurationStore, text: string, index = 0): { image: number; version: number } {
  store.addImages(someImages(index + 1).slice(-1));
  const image = store.entries().at(-1)?.image.id ?? 0;
  return { image, version: store.addVersion({ image, kind: "described", text, author: "nano" }).id };
}
