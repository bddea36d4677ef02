/** Projects with real pictures and texts of every standing, for tests of the review. */
import { createHash } from "node:crypto";
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { CurationStore } from "../../src/curation/store.ts";
import { picture } from "./cli-command.ts";
import { openProject } from "./curation-projects.ts";

const examples = readdirSync(picture("")).filter((name) => name.endsWith(".jpg"));

export interface Reviewed {
  readonly store: CurationStore;
  readonly path: string;
  /** Ids of the pictures. */
  readonly ids: readonly number[];
}

/** A project whose pictures are copies of the examples (changed, so that each is another), with polished texts. */
export function reviewedProject(folder: string, texts: readonly string[], name = "review.db"): Reviewed {
  mkdirSync(folder, { recursive: true });
  const store = openProject(folder, name);
  const ids = texts.map((text, i) => {
    const file = addPicture(folder, i);
    const bytes = readFileSync(file);
    store.addPictures([{ name: `${i + 1}.jpg`, source: { path: file }, sha256: sha256(bytes) }]);
    const id = store.entries().at(-1)?.picture.id ?? 0;
    const first = store.addVersion({ picture: id, kind: "described", text: `${text} ${text}`, author: "nano" });
    store.addVersion({ picture: id, parent: first.id, kind: "polished", text, author: "smollm2" });
    return id;
  });
  return { store, path: join(folder, name), ids };
}

export function sha256(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

/** What follows the end of a JPEG is ignored. */
function addPicture(folder: string, i: number): string {
  const file = join(folder, `${i + 1}.jpg`);
  writeFileSync(file, Buffer.concat([readFileSync(picture(examples[i % examples.length] ?? "")), Buffer.from([i])]));
  return file;
}
