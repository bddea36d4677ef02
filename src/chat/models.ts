/** Models by name: those that come with the package, and those that can be or were pulled. */
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { importQuantizations } from "../convert/import-plan.ts";
import { pulledFolder, releasedFolder, releasedModels } from "../convert/released.ts";
import { MiniGPT4Error } from "../errors.ts";
import { cacheFolder } from "../files/cache-folder.ts";

/** The models of the package are two levels above this file, in the sources and in the build. */
const shippedFolder = join(import.meta.dirname, "..", "..", "models");

export interface ListedModel {
  /** For `MiniGPT4.load`. */
  readonly name: string;
  /**
   * `"shipped"` comes with the package, `"pulled"` is in the cache, and `"available"` has to be downloaded first, with
   * `minigpt4 pull NAME`.
   */
  readonly status: "shipped" | "pulled" | "available";
  /** Its folder, unless it has to be downloaded first. */
  readonly path?: string;
}

/**
 * All models that have a name: those that can be loaded now, and those that can be pulled.
 *
 * @param options.cacheFolder where pulled models are; the user's cache by default
 *
 * @example
 * ```ts
 * import { listModels } from "minigpt4";
 *
 * for (const { name, status } of await listModels()) console.log(name, status);
 * ```
 */
export async function listModels(options: { readonly cacheFolder?: string } = {}): Promise<ListedModel[]> {
  const cache = options.cacheFolder ?? cacheFolder();
  const shipped = readdirSync(shippedFolder).filter(isShipped).sort();
  const released = [...releasedModels.keys()].flatMap((name): ListedModel[] => {
    const pulled = [...importQuantizations, "gguf" as const]
      .map((kind) => ({ name: `${name}-${kind}`, path: releasedFolder(cache, name, kind) }))
      .filter(({ path }) => isModelFolder(path));
    if (pulled.length === 0) return [{ name, status: "available" }];
    return pulled.map((model) => ({ ...model, status: "pulled" }));
  });
  return [
    ...shipped.map((name): ListedModel => ({ name, status: "shipped", path: join(shippedFolder, name) })),
    ...released,
  ];
}

/**
 * The folder of a model that is given by its name or path.
 * @throws MiniGPT4Error (`model_not_found`) naming the known models, or how to fetch the model
 */
export function modelPath(nameOrFolder: string, cache = cacheFolder()): string {
  if (isShipped(nameOrFolder)) return join(shippedFolder, nameOrFolder);
  if (existsSync(nameOrFolder)) return nameOrFolder;
  try {
    const pulled = pulledFolder(nameOrFolder, cache);
    if (pulled) return pulled;
  } catch (cause) {
    throw new MiniGPT4Error("model_not_found", (cause as Error).message, { cause });
  }
  throw new MiniGPT4Error(
    "model_not_found",
    `No model "${nameOrFolder}": it is neither a folder nor the name of a model that comes with this package ` +
      `(nano) or can be pulled (${[...releasedModels.keys()].join(", ")})`,
  );
}

function isShipped(name: string): boolean {
  return /^[\w.-]+$/.test(name) && isModelFolder(join(shippedFolder, name));
}

function isModelFolder(path: string): boolean {
  return existsSync(join(path, "config.json"));
}
