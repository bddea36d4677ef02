/** Folders for models on their way to the engine. They are removed at once, unless the process is killed in between. */
import { mkdtemp, readdir, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

const prefix = "minigpt4-engine-";
/** Milliseconds after which nobody writes or loads a model any more. */
const abandonedAfter = 3_600_000;

/** A new folder. Those that killed processes left are removed: each is as large as a language model. */
export async function engineFolder(): Promise<string> {
  const parent = tmpdir();
  for (const name of (await readdir(parent)).filter((found) => found.startsWith(prefix))) {
    const path = join(parent, name);
    const status = await stat(path).catch(() => undefined);
    const isAbandoned = status && Date.now() - status.mtimeMs > abandonedAfter;
    // Another user's cannot be removed, nor, on Windows, what is in use.
    if (isAbandoned) await rm(path, { recursive: true, force: true }).catch(() => {});
  }
  return mkdtemp(join(parent, prefix));
}
