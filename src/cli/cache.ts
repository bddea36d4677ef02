/** `minigpt4 cache`: lists or clears the image features that training caches. */
import { join } from "node:path";
import type { Command } from "commander";
import { cacheFolder } from "../files/cache-folder.ts";
import type { CommandContext } from "./context.ts";
import { formatBytes, formatCount } from "./text.ts";

interface CacheFlags {
  readonly folder: string;
  readonly clear?: boolean;
  readonly json?: boolean;
}

export function defineCache(command: Command, context: CommandContext): void {
  command
    .description(
      "List the feature caches: one for each frozen encoder (and Q-Former) and its settings. Cleared features are computed " +
        "again when they are needed.",
    )
    .option("--folder <path>", "folder of the cache, if a recipe sets its own", join(cacheFolder(), "features"))
    .option("--clear", "remove all caches")
    .option("--json", 'print a JSON array of {"path", "key", "rows", "bytes"}')
    .addHelpText("after", "\nExamples:\n  minigpt4 cache\n  minigpt4 cache --clear")
    .action((flags) => showCache(context, flags));
}

async function showCache(context: CommandContext, { folder, clear, json }: CacheFlags): Promise<void> {
  const { listCaches, removeStaleCaches } = await import("../data/feature-cache.ts");
  const caches = clear
    ? await removeStaleCaches(folder, [], (message) => context.printError(message))
    : await listCaches(folder);
  if (json) {
    context.print(JSON.stringify(caches));
    return;
  }
  if (caches.length === 0) {
    context.print(`No cached features in ${folder}`);
    return;
  }
  const verb = clear ? "removed  " : "";
  for (const { path, rows, bytes } of caches) {
    context.print(`${verb}${formatBytes(bytes).padStart(8)}  ${formatCount(rows).padStart(9)} rows  ${path}`);
  }
  const total = caches.reduce((sum, { bytes }) => sum + bytes, 0);
  context.print(`${verb}${formatBytes(total).padStart(8)}  total`);
}
