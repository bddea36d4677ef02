/**
 * The interface between the trainer and what is trained: a stage is a graph with a loss, the weights it trains, and a
 * function that makes samples into the inputs of a step.
 */
import type { ImageTextPair } from "../../data/dataset.ts";
import type { SessionOptions } from "../../runtime/session.ts";
import { type NdArray, ndarray, sizeOf } from "../../tensor/array.ts";
import type { Graph, Value } from "../../tensor/graph.ts";
import { Random } from "../../tensor/random.ts";
import { evaluateDim } from "../../tensor/shapes.ts";

/** Arrays by the names of a graph's inputs or outputs. */
export type Feeds = Readonly<Record<string, NdArray>>;

export interface Stage {
  readonly name: string;
  readonly graph: Graph;
  /** float32 scalar. */
  readonly loss: Value;
  /** Parts of the loss to report, float32 scalars. They add up over the micro-batches of a step. */
  readonly terms?: Readonly<Record<string, Value>>;
  /** Inputs of the graph that are trained, by name. */
  readonly trained: ReadonlyMap<string, Value>;
  /** Needed where the losses of a step's micro-batches do not simply add up. */
  readonly gradCache?: GradCache;
  /** Opens the part of the loss that does not fit into the graph. */
  openExternalLoss?(session: SessionOptions): Promise<ExternalLoss>;
  /** @param random random numbers of the step: the source of everything that is drawn */
  compose(samples: readonly StageSample[], random: Random): ComposedBatch;
  /** How the stage is validated; a stage without it is not. */
  readonly validation?: StageValidation;
}

/** An image with its texts. */
export interface StageSample {
  readonly pair: ImageTextPair;
  /** Index of its dataset in the recipe. */
  readonly dataset: number;
}

/** Samples as the inputs of a graph, except for the features of their images. */
export interface ComposedBatch {
  /** Tokens or images that the loss is a mean over. A batch without targets is skipped. */
  readonly targets: number;
  /** Tokens without padding, and with padding. */
  readonly tokens: number;
  readonly paddedTokens: number;
  /** @param features of the samples' images, [samples, ...]; may be overwritten */
  feeds(features: NdArray<"float32">, step: StepTotals): Record<string, NdArray>;
}

/** Sums over all micro-batches of a step. */
export interface StepTotals {
  readonly targets: number;
  readonly samples: number;
}

/**
 * Gradient caching (Gao et al., arXiv 2101.06983): each micro-batch is embedded without gradients first, and then fed the
 * embeddings of the others.
 */
export interface GradCache {
  readonly graph: Graph;
  /** The embeddings, [samples, ...] each. */
  readonly outputs: Readonly<Record<string, Value>>;
  /** @param others outputs of the other micro-batches; empty where the step is one batch */
  feeds(samples: number, others: readonly Feeds[]): Record<string, NdArray>;
}

/** A part of the loss that is computed outside of the stage's graph. */
export interface ExternalLoss {
  /** The inputs of the graph that carry the loss and its gradient. @param batch with the trained weights */
  feeds(batch: Feeds): Promise<Record<string, NdArray>>;
  /** The validation losses of a batch. @param batch with the trained weights */
  losses(batch: Feeds): Promise<Float32Array>;
  close(): Promise<void>;
}

/** The validation of a stage: losses without dropout, computed by the graph that is trained. */
export interface StageValidation {
  /** Samples that are computed together. */
  readonly batchSize: number;
  /** Output of the stage's graph, float32 [losses] or []; undefined where an external loss computes it. */
  readonly losses?: Value;
  compose(samples: readonly StageSample[], random: Random): ValidationBatch;
}

interface ValidationBatch {
  /** Weight of the batch's mean loss in the mean over all batches; 0 skips the batch. */
  readonly weight: number;
  feeds(features: NdArray<"float32">): Record<string, NdArray>;
}

/** Random numbers of one step. They depend on seed and step only, so a resumed run draws the same. @param seed below 2^21 */
export function stepRandom(seed: number, step: number): Random {
  return new Random(seed * 2 ** 32 + step);
}

/** Dropout (Srivastava et al., 2014) with masks as inputs of the graph, so that runs are reproducible. */
export class Dropout {
  private readonly graph: Graph;
  private readonly rate: number;
  private readonly masks: Value[] = [];

  /** @param rate share of the elements that become zero; the others are scaled up, so the mean stays the same */
  constructor(graph: Graph, rate: number) {
    this.graph = graph;
    this.rate = rate;
  }

  /** Drops elements of `x`, whose sizes are numbers or single names. */
  apply(x: Value): Value {
    if (this.rate === 0) return x;
    const mask = this.graph.input(`dropout.${this.masks.length}`, "float32", x.shape);
    this.masks.push(mask);
    return x.mul(mask);
  }

  /** Draws masks for a batch. @param sizes of the named axes */
  feeds(sizes: Readonly<Record<string, number>>, random: Random): Record<string, NdArray> {
    return this.fill(sizes, (length) => dropoutMask(length, this.rate, random));
  }

  /** Masks that drop nothing, for validation. @param sizes of the named axes */
  identity(sizes: Readonly<Record<string, number>>): Record<string, NdArray> {
    return this.fill(sizes, (length) => new Float32Array(length).fill(1));
  }

  private fill(sizes: Readonly<Record<string, number>>, mask: (length: number) => Float32Array) {
    const known = new Map(Object.entries(sizes));
    return Object.fromEntries(
      this.masks.map(({ name, shape }) => {
        const dims = shape.map((dim) => evaluateDim(dim, known));
        return [name, ndarray("float32", dims, mask(sizeOf(dims)))];
      }),
    );
  }
}

/** 0 for a share of the elements, 1 / (1 - rate) for the others. */
export function dropoutMask(length: number, rate: number, random: Random): Float32Array {
  const kept = 1 / (1 - rate);
  const limit = rate * 2 ** 32;
  const mask = new Float32Array(length);
  // `Float32Array.from` is several times slower, and masks are drawn for each step.
  for (let i = 0; i < length; i++) if (random.uint32() >= limit) mask[i] = kept;
  return mask;
}

/** Sets a share of the values to zero, in place, and scales the others up. */
export function dropFeatures(values: Float32Array, rate: number, random: Random): void {
  if (rate === 0) return;
  const mask = dropoutMask(values.length, rate, random);
  for (let i = 0; i < values.length; i++) values[i] = (values[i] as number) * (mask[i] as number);
}
