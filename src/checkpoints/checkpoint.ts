/** Opens weights of any format: one file, several named by an index, or a Hugging Face folder. */
import { access, stat } from "node:fs/promises";
import { join } from "node:path";
import type { Checkpoint } from "./format.ts";
import { openSharded } from "./sharded.ts";
import { openSingle } from "./single.ts";
import { withStoredMatrices } from "./stored-matrices.ts";

export type { Checkpoint, TensorInfo } from "./format.ts";

/** Where Hugging Face folders keep their weights, best first. */
const folderFiles = [
  "model.safetensors",
  "model.safetensors.index.json",
  "pytorch_model.bin",
  "pytorch_model.bin.index.json",
];

/**
 * Opens weights: a safetensors, torch or GGUF file (recognised by its content), an index of shards (`*.json`), or a
 * folder as Hugging Face has it (safetensors preferred to `.bin`).
 *
 * @throws Error naming the file, and what in it is wrong
 */
export async function openCheckpoint(path: string): Promise<Checkpoint> {
  if ((await stat(path)).isDirectory()) return openCheckpoint(await weightsOf(path));
  const checkpoint = await (path.endsWith(".json") ? openSharded(path) : openSingle(path));
  try {
    return withStoredMatrices(checkpoint);
  } catch (error) {
    await checkpoint.close();
    throw error;
  }
}

async function weightsOf(folder: string): Promise<string> {
  for (const name of folderFiles) {
    const path = join(folder, name);
    const exists = await access(path).then(
      () => true,
      () => false,
    );
    if (exists) return path;
  }
  throw new Error(`${folder}: holds no weights; looked for ${folderFiles.join(", ")}`);
}
