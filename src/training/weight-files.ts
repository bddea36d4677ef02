/** Weight files of the folder that a run leaves. */
import { copyFile, rename, stat } from "node:fs/promises";
import { join, relative, resolve } from "node:path";
import { writeSafetensors } from "../checkpoints/safetensors.ts";
import { ndarray } from "../tensor/array.ts";
import { float32ToFloat16 } from "../tensor/float16.ts";
import type { NamedArrays } from "./checkpoints.ts";

/** Frozen files up to this size are copied into the folder, larger ones are referred to. */
const largestCopy = 2 ** 27;

/** Writes those arrays that `isPart` names, as float16. */
export async function writePart(path: string, arrays: NamedArrays, isPart: (name: string) => boolean): Promise<void> {
  const part = Object.entries(arrays).filter(([name]) => isPart(name));
  const halves = part.map(([name, { shape, data }]) => [name, ndarray("float16", shape, float32ToFloat16(data))]);
  await writeSafetensors(path, Object.fromEntries(halves));
}

/** Copies a file into the folder, or refers to it where it is large. @returns the file as the folder's config names it */
export async function placeFile(path: string, folder: string, name: string): Promise<string> {
  const { size } = await stat(path);
  if (size > largestCopy || !path.endsWith(".safetensors")) return relative(resolve(folder), resolve(path));
  const copy = join(folder, name);
  if (resolve(copy) === resolve(path)) return name;
  await copyFile(path, `${copy}.partial`);
  await rename(`${copy}.partial`, copy);
  return name;
}
