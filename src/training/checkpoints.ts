/** Checkpoints of a run: weights, optimizer, EMA and the position in the data, one file for each saved step. */
import { mkdir, readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import type { MixtureState } from "../data/sampling.ts";
import type { Checkpoint } from "../formats/open.ts";
import { openSafetensors, writeSafetensors } from "../formats/safetensors.ts";
import { type NdArray, ndarray } from "../tensor/array.ts";
import type { TrainingState } from "./training-state.ts";

export type NamedArrays = Record<string, NdArray<"float32">>;

/** Everything that a run needs to continue from a step. */
export interface TrainerCheckpoint {
  readonly stage: string;
  readonly state: TrainingState;
  /** Exponential moving average of the weights, where the run has one. */
  readonly ema?: NamedArrays;
  /** Position in the datasets after the last step. */
  readonly position: MixtureState;
  readonly best?: BestValidation;
  /** Learning rate of the last step. */
  readonly learningRate?: number;
}

/** The smallest validation loss so far, and its step. */
export interface BestValidation {
  readonly step: number;
  readonly loss: number;
}

const count = z.int().min(0);
const positionSchema = z.object({
  streams: z.array(z.object({ epoch: count, part: count, position: count })),
  behind: z.array(z.number()),
});
// `place` and the prefix "average:" are the names that the files have always had.
const headSchema = z.object({
  stage: z.string(),
  step: count,
  place: positionSchema,
  best: z.object({ step: count, loss: z.number() }).optional(),
  learningRate: z.number().optional(),
});

const prefixes = { parameters: "parameter:", means: "mean:", variances: "variance:", ema: "average:" } as const;

/** The checkpoints of a run's folder. */
export class Checkpoints {
  private readonly folder: string;
  /** Names of the stages, in the order they run. */
  private readonly stages: readonly string[];
  private readonly keepLast: number;

  constructor(runFolder: string, stages: readonly string[], keepLast: number) {
    this.folder = join(runFolder, "checkpoints");
    this.stages = stages;
    this.keepLast = keepLast;
  }

  /** Writes a checkpoint atomically, then removes the oldest ones and those of later steps. */
  async save({ stage, state, ema = {}, position, best, learningRate }: TrainerCheckpoint): Promise<void> {
    await mkdir(this.folder, { recursive: true });
    const { step, ...groups } = state;
    const arrays: Record<string, NdArray> = {};
    for (const [group, named] of Object.entries({ ...groups, ema })) {
      for (const [name, array] of Object.entries(named))
        arrays[prefixes[group as keyof typeof prefixes] + name] = array;
    }
    const head: z.infer<typeof headSchema> = {
      stage,
      step,
      place: { streams: [...position.streams], behind: [...position.behind] },
      best,
      learningRate,
    };
    const written = this.path(stage, step);
    await writeSafetensors(written, arrays, { run: JSON.stringify(head) });
    const all = await this.list();
    const own = all.findIndex(({ path }) => path === written);
    // Checkpoints of later steps are damaged: the run was resumed from an earlier one.
    const others = [...all.slice(0, Math.max(0, own + 1 - this.keepLast)), ...all.slice(own + 1)];
    for (const { path } of others) await rm(path, { force: true });
  }

  /** Whether there is no checkpoint. */
  async isEmpty(): Promise<boolean> {
    return (await this.list()).length === 0;
  }

  /**
   * Reads the newest intact checkpoint; damaged ones are skipped with a message.
   *
   * @throws Error if there are no intact checkpoints
   */
  async latest(onMessage: (message: string) => void = () => {}): Promise<TrainerCheckpoint> {
    const all = await this.list();
    for (const { path } of all.toReversed()) {
      try {
        return await read(path);
      } catch (error) {
        onMessage(`Skipped a damaged checkpoint: ${(error as Error).message}`);
      }
    }
    throw new Error(`No checkpoint in ${this.folder} to resume from. Start without --resume`);
  }

  /** Removes all checkpoints. */
  async clear(): Promise<void> {
    for (const { path } of await this.list()) await rm(path, { force: true });
  }

  private path(stage: string, step: number): string {
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

async function read(path: string): Promise<TrainerCheckpoint> {
  const file = await openSafetensors(path);
  try {
    const { data, error } = headSchema.safeParse(JSON.parse(String(file.metadata.run ?? null)));
    if (!data) throw new Error(`${path} is not a training checkpoint: ${z.prettifyError(error)}`);
    const { step, place: position, ...head } = data;
    const ema = await readArrays(file, prefixes.ema);
    const state = {
      step,
      parameters: await readArrays(file, prefixes.parameters),
      means: await readArrays(file, prefixes.means),
      variances: await readArrays(file, prefixes.variances),
    };
    return { ...head, position, state, ema: Object.keys(ema).length > 0 ? ema : undefined };
  } finally {
    await file.close();
  }
}

/** Tensors whose names start with the prefix, without it. */
async function readArrays(file: Checkpoint, prefix = ""): Promise<NamedArrays> {
  const arrays: NamedArrays = {};
  for (const [name, { shape }] of file.tensors) {
    if (!name.startsWith(prefix)) continue;
    arrays[name.slice(prefix.length)] = ndarray("float32", shape, await file.readFloat32(name));
  }
  return arrays;
}

/** The weights with the smallest validation loss, in a file of the run's folder. */
export class BestWeights {
  /** The smallest loss so far. */
  validation: BestValidation | undefined;
  private readonly path: string;

  /** @param validation of the run that is resumed */
  constructor(runFolder: string, validation?: BestValidation) {
    this.path = join(runFolder, "best.safetensors");
    this.validation = validation;
  }

  /** Keeps weights whose loss is the smallest so far. @returns whether it is */
  async offer(weights: NamedArrays, validation: BestValidation): Promise<boolean> {
    if (this.validation && validation.loss >= this.validation.loss) return false;
    const { step, loss } = validation;
    await writeSafetensors(this.path, weights, { step: `${step}`, loss: `${loss}` });
    this.validation = validation;
    return true;
  }

  /** The best weights; undefined before the first validation. */
  async read(): Promise<NamedArrays | undefined> {
    if (!this.validation) return undefined;
    const file = await openSafetensors(this.path);
    try {
      return await readArrays(file);
    } finally {
      await file.close();
    }
  }
}
