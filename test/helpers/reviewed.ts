/** Projects with real images and texts of every standing, for tests of the review. */
import { createHash } from "node:crypto";
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { CurationStore } from "../../src/curation/store.ts";
import { image } from "./cli-command.ts";
import { openProject } from "./curation-projects.ts";

const examples = readdirSync(image("")).filter((name) => name.endsWith(".jpg"));

export interface Reviewed {
  readonly store: CurationStore;
  readonly path: string;
  /** Ids of the images. */
  readonly ids: readonly number[];
}

/** A project whose images are copies of the examples (changed, so that each is another), with polished texts. */
export function reviewedProject(folder: string, texts: readonly string[], name = "review.db"): Reviewed {
  mkdirSync(folder, { recursive: true });
  const store = openProject(folder, name);
  const ids = texts.map((text, i) => {
    const file = addImage(folder, i);
    const bytes = readFileSync(file);
    store.addImages([{ name: `${i + 1}.jpg`, source: { path: file }, sha256: sha256(bytes) }]);
    const id = store.entries().at(-1)?.image.id ?? 0;
    const first = store.addVersion({ image: id, kind: "described", text: `${text} ${text}`, author: "nano" });
    store.addVersion({ image: id, parent: first.id, kind: "polished", text, author: "smollm2" });
    return id;
  });
  return { store, path: join(folder, name), ids };
}

export function sha256(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

/** What follows the end of a JPEG is ignored. */
function addImage(folder: string, i: number): string {
  const file = join(folder, `${i + 1}.jpg`);
  writeFileSync(file, Buffer.concat([readFileSync(image(examples[i % examples.length] ?? "")), Buffer.from([i])]));
  return file;
}
