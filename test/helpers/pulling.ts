/** A released model, pulled from servers on this machine. */
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { type Pulled, type PullReleasedOptions, pullReleased } from "../../src/convert/pull-released.ts";
import { releasedModels } from "../../src/convert/released.ts";
import type { ReleasedServer } from "./released-server.ts";
import { temporaryFolder } from "./tiny-model.ts";

export const name = "minigpt4-7b";
export const model = releasedModels.get(name) ?? fail();
/** The golden files' heads are narrower than those of the released ones. */
export const heads = { vitHeads: 4, qformerHeads: 4 };

/** An empty cache, and what a pull makes in it. */
export function fresh() {
  const cacheFolder = temporaryFolder();
  const files = join(cacheFolder, "released", name);
  return {
    cacheFolder,
    files,
    out: join(cacheFolder, "models", `${name}-int4`),
    /** What is there of the released files. */
    names: () => (existsSync(files) ? allFiles(files) : []),
  };
}

export function pulling(
  server: ReleasedServer,
  { cacheFolder }: { readonly cacheFolder: string },
  more: PullReleasedOptions = {},
): Promise<Pulled> {
  return pullReleased(model, { ...server.options, ...heads, cacheFolder, ...more });
}

export function areWeights(file: string): boolean {
  return /\.(pth|bin)$/.test(file);
}

/** Paths in a folder, with `/`. */
export function allFiles(folder: string): string[] {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))
    .map((path) => path.slice(folder.length + 1).replaceAll("\\", "/"))
    .sort();
}

function fail(): never {
  throw new Error(`${name} should be known`);
}
