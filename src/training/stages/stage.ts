/** What one stage of training is: a loss, and how images with texts become the feeds of a step. The trainer knows no more. */
import type { ImageTextPair } from "../../data/dataset.ts";
import type { SessionOptions } from "../../runtime/session.ts";
import { type NdArray, ndarray, sizeOf } from "../../tensor/array.ts";
import type { Graph, Value } from "../../tensor/graph.ts";
import { Random } from "../../tensor/random.ts";
import { evaluateDim } from "../../tensor/shapes.ts";

/** An image with its texts, drawn for a step. */
export interface StageSample {
  readonly pair: ImageTextPair;
  /** Which data set of the recipe it is from. */
  readonly dataset: number;
}

/** What a batch is told of the whole step, of which it may be a part. */
interface StepTotals {
  /** The targets of all batches of the step. */
  readonly targets: number;
  /** Their images. */
  readonly samples: number;
}

/** Samples that were made into sequences; their images' features come later. */
export interface ComposedBatch {
  /** Tokens, or images, over which the loss is a mean; a batch of none is left out. */
  readonly targets: number;
  /** Tokens that go through the language model, and the places that they and the padding take. */
  readonly tokens: number;
  readonly places: number;
  /** @param features of the samples' images, [samples, ...] */
  feeds(features: NdArray<"float32">, step: StepTotals): Record<string, NdArray>;
}

/**
 * What the batches of a step know of each other where their losses do not simply add up (gradient caching: Gao et al.,
 * arXiv 2101.06983): each batch goes through this graph first, and is then fed what comes out for the others.
 */
export interface GradCache {
  readonly graph: Graph;
  /** [samples, ...] each. */
  readonly outputs: Readonly<Record<string, Value>>;
  /** @param others what came out for the other batches; none where the step is one batch */
  feeds(samples: number, others: readonly Readonly<Record<string, NdArray>>[]): Record<string, NdArray>;
}

/** A part of the loss that is computed outside of the stage's graph, because it would not fit in. */
export interface Outside {
  /** What the graph is fed of it for a batch. @param parameters what is trained, as it is now */
  feeds(
    batch: Readonly<Record<string, NdArray>>,
    parameters: Readonly<Record<string, NdArray>>,
  ): Promise<Record<string, NdArray>>;
  close(): Promise<void>;
}

export interface Stage {
  readonly name: string;
  readonly graph: Graph;
  /** float32 scalar. */
  readonly loss: Value;
  /** Parts of the loss that are told beside it, float32 scalars; those of a step's batches add up. */
  readonly terms?: Readonly<Record<string, Value>>;
  /** Inputs of the graph that are trained, by name. */
  readonly trained: ReadonlyMap<string, Value>;
  readonly exchange?: GradCache;
  /** Makes ready what is computed outside of the graph; there is nothing by default. */
  openOutside?(session: SessionOptions): Promise<Outside>;
  /** @param random the step's own numbers, which decide whatever is left to chance */
  compose(samples: readonly StageSample[], random: Random): ComposedBatch;
}

/** The random numbers of one step: they depend on the run's seed and the step alone, so that a run can go on anywhere. The seed is below 2^21. */
export function stepRandom(seed: number, step: number): Random {
  return new Random(seed * 2 ** 32 + step);
}

// Dropout (Srivastava et al., 2014) whose masks are inputs of the graph: the run's random numbers decide, so it can be repeated.

export class Dropout {
  private readonly graph: Graph;
  private readonly share: number;
  /** Inputs for masks, one for each place where something is dropped out. */
  private readonly masks: Value[] = [];

  /** @param share of the elements that become zero; the others grow so that the mean stays */
  constructor(graph: Graph, share: number) {
    this.graph = graph;
    this.share = share;
  }

  /** x, dropped out; its sizes are numbers or single names. */
  apply(x: Value): Value {
    if (this.share === 0) return x;
    const mask = this.graph.input(`dropout.${this.masks.length}`, "float32", x.shape);
    this.masks.push(mask);
    return x.mul(mask);
  }

  /** New masks for a batch. @param sizes of the named axes */
  feeds(sizes: Readonly<Record<string, number>>, random: Random): Record<string, NdArray> {
    const known = new Map(Object.entries(sizes));
    return Object.fromEntries(
      this.masks.map(({ name, shape }) => {
        const mask = shape.map((dim) => evaluateDim(dim, known));
        return [name, ndarray("float32", mask, dropoutMask(sizeOf(mask), this.share, random))];
      }),
    );
  }
}

/** 0 for a share of the elements, 1 / (1 - share) for the others. */
export function dropoutMask(length: number, share: number, random: Random): Float32Array {
  const kept = 1 / (1 - share);
  const limit = share * 2 ** 32;
  const mask = new Float32Array(length);
  // `Float32Array.from` is several times slower, and masks are made for each step.
  for (let i = 0; i < length; i++) if (random.uint32() >= limit) mask[i] = kept;
  return mask;
}

/** Sets a share of the values to zero, in place, and scales the others up. */
export function dropFeatures(values: Float32Array, share: number, random: Random): void {
  if (share === 0) return;
  const mask = dropoutMask(values.length, share, random);
  for (let i = 0; i < values.length; i++) values[i] = (values[i] as number) * (mask[i] as number);
}
