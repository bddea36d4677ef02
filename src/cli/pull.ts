/** `minigpt4 pull`: fetches a known model into the cache. */
import { stat } from "node:fs/promises";
import { type Command, InvalidArgumentError } from "commander";
import { cacheFolder } from "../checkpoints/cache-folder.ts";
import { pull } from "../checkpoints/pull.ts";
import { registry } from "../checkpoints/registry.ts";
import { untilInterrupted } from "./interrupt.ts";
import { downloadDisplay } from "./progress.ts";
import { formatBytes } from "./text.ts";

interface PullFlags {
  readonly cache: string;
  readonly json?: boolean;
}

export function registerPull(program: Command): void {
  const known = [...registry].map(([name, { bytes, license }]) => `  ${name}  ${formatBytes(bytes)}, ${license}`);
  program
    .command("pull")
    .summary("fetch a language model into the cache")
    .description(
      "Fetches a known language model into the cache, checks its SHA-256 and prints its path. " +
        "An interrupted download goes on where it stopped.",
    )
    .argument("<name>", "see below", knownName)
    .option("--cache <folder>", "where to keep it", cacheFolder())
    .option("--json", 'print {"name", "path", "bytes", "sha256", "license"}')
    .addHelpText("after", `\nKnown names:\n${known.join("\n")}\n\nExample:\n  minigpt4 pull ${[...registry.keys()][0]}`)
    .action(fetchModel);
}

function knownName(name: string): string {
  if (registry.has(name)) return name;
  const known = `Known names: ${[...registry.keys()].join(", ")}.`;
  throw new InvalidArgumentError(name === "nano" ? `nano comes with the package. ${known}` : known);
}

async function fetchModel(name: string, { cache, json }: PullFlags): Promise<void> {
  const { onProgress, stop } = downloadDisplay();
  try {
    const path = await pull(name, { cacheFolder: cache, onProgress, signal: untilInterrupted() });
    stop();
    const { bytes } = { bytes: (await stat(path)).size };
    const { sha256, license } = registry.get(name) ?? {};
    console.log(json ? JSON.stringify({ name, path, bytes, sha256, license }) : path);
  } finally {
    stop();
  }
}
