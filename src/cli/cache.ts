/** `minigpt4 cache`: what training has kept of images, and how to be rid of it. */
import { join } from "node:path";
import type { Command } from "commander";
import { type CacheStatus, listCaches, removeStaleCaches } from "../data/feature-cache.ts";
import { cacheFolder } from "../files/cache-folder.ts";
import { formatBytes, formatCount } from "./text.ts";

interface CacheFlags {
  readonly folder: string;
  readonly clear?: boolean;
  readonly json?: boolean;
}

export function registerCache(program: Command): void {
  program
    .command("cache")
    .summary("show or clear the features that training keeps")
    .description(
      "Lists the feature caches: one for each frozen encoder (and Q-Former) and its settings. What is cleared is computed again when it is needed.",
    )
    .option("--folder <path>", "the cache's folder, where a recipe names its own", join(cacheFolder(), "features"))
    .option("--clear", "remove all of them")
    .option("--json", "print the list as JSON")
    .action(showCache);
}

async function showCache({ folder, clear, json }: CacheFlags): Promise<void> {
  const caches = clear
    ? await removeStaleCaches(folder, [], (message) => process.stderr.write(`${message}\n`))
    : await listCaches(folder);
  if (json) {
    console.log(JSON.stringify(caches));
    return;
  }
  if (caches.length === 0) {
    console.log(`No features are kept in ${folder}`);
    return;
  }
  const verb = clear ? "removed  " : "";
  for (const { path, rows, bytes } of caches) {
    console.log(`${verb}${formatBytes(bytes).padStart(8)}  ${formatCount(rows).padStart(9)} rows  ${path}`);
  }
  console.log(`${verb}${formatBytes(totalBytes(caches)).padStart(8)}  in all`);
}

function totalBytes(caches: readonly CacheStatus[]): number {
  return caches.reduce((sum, { bytes }) => sum + bytes, 0);
}
