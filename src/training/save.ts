/** What a run leaves: a model folder that can be used at once, and a state from which the run goes on. */
import { existsSync } from "node:fs";
import { copyFile, mkdir, rename, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { openSafetensors, writeSafetensors } from "../checkpoints/safetensors.ts";
import type { ModelFolderJson } from "../models/model-folder.ts";
import type { NamedArrays } from "../models/qformer-initial.ts";
import { type NdArray, ndarray } from "../tensor/array.ts";
import { float32ToFloat16 } from "../tensor/float16.ts";
import type { TrainingState } from "./step.ts";

/** Writes a model folder: trained weights as float16, the encoder's file as it is. */
export async function saveModelFolder(
  folder: string,
  json: ModelFolderJson,
  trained: NamedArrays,
  encoderPath: string,
): Promise<void> {
  await mkdir(folder, { recursive: true });
  const part = (isPart: (name: string) => boolean) =>
    Object.fromEntries(
      Object.entries(trained)
        .filter(([name]) => isPart(name))
        .map(([name, { shape, data }]) => [name, ndarray("float16", shape, float32ToFloat16(data))]),
    );
  const isProjection = (name: string) => name.startsWith("llama_proj.");
  await writeSafetensors(join(folder, "projection.safetensors"), part(isProjection));
  await writeSafetensors(
    join(folder, "qformer.safetensors"),
    part((name) => !isProjection(name)),
  );
  const encoder = join(folder, "encoder.safetensors");
  await copyFile(encoderPath, `${encoder}.partial`);
  await rename(`${encoder}.partial`, encoder);
  const config = join(folder, "config.json");
  await writeFile(`${config}.partial`, `${JSON.stringify(json, null, 2)}\n`);
  await rename(`${config}.partial`, config);
}

const prefixes = { parameters: "", means: "mean:", variances: "variance:", average: "average:" } as const;

/** Everything that a run needs to go on: weights, optimiser, average, and `place` (data position, random state). */
export async function saveState(
  path: string,
  state: TrainingState,
  average: NamedArrays,
  place: unknown,
): Promise<void> {
  const arrays: Record<string, NdArray> = {};
  const parts = { ...state, average };
  for (const [key, prefix] of Object.entries(prefixes) as [keyof typeof prefixes, string][]) {
    for (const [name, array] of Object.entries(parts[key])) arrays[prefix + name] = array;
  }
  await writeSafetensors(path, arrays, { step: `${state.step}`, place: JSON.stringify(place) });
}

export interface SavedState {
  readonly state: TrainingState;
  readonly average: NamedArrays;
  readonly place: unknown;
}

/** Reads what `saveState` wrote. @throws Error naming the file if it is none */
export async function loadState(path: string): Promise<SavedState> {
  if (!existsSync(path)) throw new Error(`There is no saved state at ${path} to go on from; begin without --resume`);
  const file = await openSafetensors(path);
  try {
    const { step, place } = file.metadata;
    if (typeof step !== "string" || typeof place !== "string") throw new Error(`${path} is no saved state of a run`);
    const read = async (prefix: string) => {
      const others = Object.values(prefixes).filter((other) => other !== "" && other !== prefix);
      const arrays: NamedArrays = {};
      for (const [name, { shape }] of file.tensors) {
        if (!name.startsWith(prefix) || others.some((other) => prefix === "" && name.startsWith(other))) continue;
        arrays[name.slice(prefix.length)] = ndarray("float32", shape, await file.readFloat32(name));
      }
      return arrays;
    };
    const state = {
      step: Number(step),
      parameters: await read(prefixes.parameters),
      means: await read(prefixes.means),
      variances: await read(prefixes.variances),
    };
    return { state, average: await read(prefixes.average), place: JSON.parse(place) };
  } finally {
    await file.close();
  }
}
