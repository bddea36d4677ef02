/** What a run keeps to go on from: weights, optimiser, running average, and the place in the data, one file for each saved step. */
import { mkdir, readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import type { MixtureState } from "../data/sampling.ts";
import type { Checkpoint } from "../formats/open.ts";
import { openSafetensors, writeSafetensors } from "../formats/safetensors.ts";
import { type NdArray, ndarray } from "../tensor/array.ts";
import type { TrainingState } from "./training-state.ts";

export type NamedArrays = Record<string, NdArray<"float32">>;

export interface RunState {
  readonly stage: string;
  readonly state: TrainingState;
  /** The running average of the weights, where the run keeps one. */
  readonly average?: NamedArrays;
  readonly place: MixtureState;
  /** The smallest held-out loss so far, and its step. */
  readonly best?: { readonly step: number; readonly loss: number };
  /** Of the last step. */
  readonly learningRate?: number;
}

const count = z.int().min(0);
const placeSchema = z.object({
  streams: z.array(z.object({ epoch: count, part: count, position: count })),
  behind: z.array(z.number()),
});
const headSchema = z.object({
  stage: z.string(),
  step: count,
  place: placeSchema,
  best: z.object({ step: count, loss: z.number() }).optional(),
  learningRate: z.number().optional(),
});

const prefixes = { parameters: "parameter:", means: "mean:", variances: "variance:", average: "average:" } as const;

/** The checkpoints of a run's folder. */
export class Checkpoints {
  private readonly folder: string;
  /** Names of the stages, in the order in which they are run. */
  private readonly stages: readonly string[];
  private readonly keepLast: number;

  constructor(runFolder: string, stages: readonly string[], keepLast: number) {
    this.folder = join(runFolder, "checkpoints");
    this.stages = stages;
    this.keepLast = keepLast;
  }

  /** Writes a checkpoint, whole or not at all, and then removes the oldest ones, and those that it makes void. */
  async save(run: RunState): Promise<void> {
    await mkdir(this.folder, { recursive: true });
    const { stage, state, average = {}, place, best, learningRate } = run;
    const arrays: Record<string, NdArray> = {};
    for (const [part, prefix] of Object.entries(prefixes)) {
      const named = part === "average" ? average : state[part as keyof Omit<TrainingState, "step">];
      for (const [name, array] of Object.entries(named)) arrays[prefix + name] = array;
    }
    const head: z.infer<typeof headSchema> = {
      stage,
      step: state.step,
      place: { streams: [...place.streams], behind: [...place.behind] },
      ...(best && { best }),
      ...(learningRate !== undefined && { learningRate }),
    };
    const written = this.pathOf(stage, state.step);
    await writeSafetensors(written, arrays, { run: JSON.stringify(head) });
    const all = await this.list();
    const own = all.findIndex(({ path }) => path === written);
    // Those of later steps were damaged: the run went on from one before them.
    const others = [...all.slice(0, Math.max(0, own + 1 - this.keepLast)), ...all.slice(own + 1)];
    for (const { path } of others) await rm(path, { force: true });
  }

  /** Whether there is anything to go on from. */
  async isEmpty(): Promise<boolean> {
    return (await this.list()).length === 0;
  }

  /**
   * The newest checkpoint that can be read; damaged ones are passed over with a message.
   * @throws Error if there is none
   */
  async latest(onMessage: (message: string) => void = () => {}): Promise<RunState> {
    const all = await this.list();
    for (const { path } of all.toReversed()) {
      try {
        return await read(path);
      } catch (error) {
        onMessage(`Passed over a checkpoint: ${(error as Error).message}`);
      }
    }
    throw new Error(`There is no checkpoint in ${this.folder} to go on from; begin without --resume`);
  }

  /** Removes all checkpoints: a run begins anew. */
  async clear(): Promise<void> {
    for (const { path } of await this.list()) await rm(path, { force: true });
  }

  private pathOf(stage: string, step: number): string {
    return join(this.folder, `${stage}-${String(step).padStart(7, "0")}.safetensors`);
  }

  /** Oldest first. */
  private async list(): Promise<{ path: string; order: number; step: number }[]> {
    const names = await readdir(this.folder).catch((error: NodeJS.ErrnoException) => {
      if (error.code === "ENOENT") return [];
      throw error;
    });
    const found = names.flatMap((name) => {
      const [, stage = "", step] = /^(.+)-(\d+)\.safetensors$/.exec(name) ?? [];
      const order = this.stages.indexOf(stage);
      return order < 0 ? [] : [{ path: join(this.folder, name), order, step: Number(step) }];
    });
    return found.sort((a, b) => a.order - b.order || a.step - b.step);
  }
}

async function read(path: string): Promise<RunState> {
  const file = await openSafetensors(path);
  try {
    const { data, error } = headSchema.safeParse(JSON.parse(String(file.metadata.run ?? null)));
    if (!data) throw new Error(`${path} is no checkpoint of a run: ${z.prettifyError(error)}`);
    const { step, ...head } = data;
    const [parameters, means, variances, average] = [
      await arraysOf(file, prefixes.parameters),
      await arraysOf(file, prefixes.means),
      await arraysOf(file, prefixes.variances),
      await arraysOf(file, prefixes.average),
    ];
    const state = { step, parameters, means, variances };
    return { ...head, state, ...(Object.keys(average).length > 0 && { average }) };
  } finally {
    await file.close();
  }
}

/** Tensors whose names begin with the prefix, without it. */
export async function arraysOf(file: Checkpoint, prefix = ""): Promise<NamedArrays> {
  const arrays: NamedArrays = {};
  for (const [name, { shape }] of file.tensors) {
    if (!name.startsWith(prefix)) continue;
    arrays[name.slice(prefix.length)] = ndarray("float32", shape, await file.readFloat32(name));
  }
  return arrays;
}
