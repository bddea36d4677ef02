/** Where models are on their way to the engine. They are removed at once, unless the process is killed in between. */
import { randomUUID } from "node:crypto";
import { mkdtemp, readdir, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { WeightsFile } from "./weights-file.ts";

const prefix = "minigpt4-engine-";
/** Milliseconds after which nobody writes or loads a model any more. */
const abandonedAfter = 3_600_000;

/** A model that is being written, and its constants. */
export interface EnginePlace {
  readonly model: string;
  readonly weights: WeightsFile;
  /** Removes both. */
  remove(): Promise<void>;
}

/**
 * A place for a model: in a new folder, or beside the files that its constants lie in.
 * @param beside a folder; one that cannot be written to is not used
 */
export async function enginePlace(beside?: string): Promise<EnginePlace> {
  if (beside !== undefined) {
    const found = await placeBeside(beside).catch(() => undefined);
    if (found) return found;
  }
  const parent = tmpdir();
  await removeAbandoned(parent, prefix);
  const folder = await mkdtemp(join(parent, prefix));
  const remove = () => rm(folder, { recursive: true, force: true, maxRetries: 3 });
  try {
    return { model: join(folder, "model.onnx"), weights: await WeightsFile.create(folder, "model.weights"), remove };
  } catch (error) {
    await remove();
    throw error;
  }
}

async function placeBeside(folder: string): Promise<EnginePlace> {
  const hidden = `.${prefix}`;
  await removeAbandoned(folder, hidden);
  const name = `${hidden}${randomUUID()}`;
  const weights = await WeightsFile.create(folder, `${name}.weights`);
  const model = join(folder, `${name}.onnx`);
  return {
    model,
    weights,
    async remove() {
      for (const path of [model, join(folder, `${name}.weights`)]) await rm(path, { force: true, maxRetries: 3 });
    },
  };
}

/** Removes what killed processes left: it may be as large as a language model. */
async function removeAbandoned(parent: string, begin: string): Promise<void> {
  for (const name of (await readdir(parent)).filter((found) => found.startsWith(begin))) {
    const path = join(parent, name);
    const status = await stat(path).catch(() => undefined);
    const isAbandoned = status && Date.now() - status.mtimeMs > abandonedAfter;
    // Another user's cannot be removed, nor, on Windows, what is in use.
    if (isAbandoned) await rm(path, { recursive: true, force: true }).catch(() => {});
  }
}
