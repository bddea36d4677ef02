/** Dropout (Srivastava et al., 2014) whose masks are inputs of the graph: the run's random numbers decide, so it can be repeated. */
import { type NdArray, ndarray, sizeOf } from "../../tensor/array.ts";
import { evaluateDim } from "../../tensor/dims.ts";
import type { Graph, Value } from "../../tensor/graph.ts";
import type { Random } from "../../tensor/random.ts";

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
