/** Projects whose texts are to be polished, and how tests let that be done. */
import { join } from "node:path";
import type { PolishOptions } from "../../src/curation/polishing/plan.ts";
import { polish } from "../../src/curation/polishing/polish.ts";
import type { CurationStore } from "../../src/curation/store.ts";
import type { ChatServer } from "./chat-server.ts";
import { described, openProject } from "./curation-projects.ts";
import { temporaryFolder } from "./tiny-model.ts";

const folder = temporaryFolder();
let count = 0;

/** A new project with so many described texts, in a file of its own. */
export function project(texts: number): { readonly store: CurationStore; readonly path: string } {
  const name = `${count++}.db`;
  const store = openProject(folder, name);
  for (let i = 0; i < texts; i++) described(store, textOf(i), i);
  return { store, path: join(folder, name) };
}

export const textOf = (i: number) => `a cat  number ${i}`;

export const currentTexts = (store: CurationStore) => store.entries().map(({ current }) => current?.text);

/** Polishes with hardly any waiting between the tries. */
export function run(
  store: CurationStore,
  server: ChatServer,
  options: Partial<PolishOptions> = {},
  signal?: AbortSignal,
) {
  return polish(store, { baseUrl: server.url, model: "test", firstDelay: 1, ...options }, signal);
}
