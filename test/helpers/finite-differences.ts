/** Compares the gradients that the graph gives with central differences of its values. */
import { expect } from "vitest";
import { Session } from "../../src/runtime/session.ts";
import { type NdArray, ndarray, sizeOf } from "../../src/tensor/array.ts";
import { gradients } from "../../src/tensor/grad/gradients.ts";
import { Graph, type Value } from "../../src/tensor/graph.ts";
import { reduceSum } from "../../src/tensor/ops/reduce.ts";
import { Random } from "../../src/tensor/random.ts";

/** Repeatable values between -1 and 1 that keep `gap` away from zero, where some operators have a kink. */
function randomArray(shape: readonly number[], seed: number, gap = 0.05): NdArray<"float32"> {
  let state = seed * 2654435761 + 12345;
  const next = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return (state / 2 ** 32) * 2 - 1;
  };
  for (let i = 0; i < 5; i++) next();
  const values = Array.from({ length: sizeOf(shape) }, () => {
    const value = next();
    return value + (value < 0 ? -gap : gap);
  });
  return ndarray("float32", shape, Float32Array.from(values));
}

/** The numbers 0.1, 0.2, ... in an order that the seed gives: no two are so close that a small step exchanges them. */
export function spacedArray(shape: readonly number[], seed: number): NdArray<"float32"> {
  const values = Array.from({ length: sizeOf(shape) }, (_, i) => (i + 1) / 10);
  return ndarray("float32", shape, Float32Array.from(new Random(seed).shuffle(values)));
}

export interface Case {
  /** Shapes of the float32 inputs that are differentiated. */
  readonly shapes: readonly (readonly number[])[];
  readonly build: (...inputs: Value[]) => Value;
  readonly seed?: number;
  /** The values at which gradients are taken; `randomArray` by default. */
  readonly values?: (shape: readonly number[], seed: number) => NdArray<"float32">;
  /** Maps them into the domain of the operator. */
  readonly domain?: (value: number) => number;
  /** The first axis of each input has a name instead of a number. */
  readonly named?: boolean;
}

/** Fails unless d(sum of weighted outputs) agrees with finite differences in every input element. */
export async function expectGradients({
  shapes,
  build,
  seed = 1,
  values: draw = randomArray,
  domain = (x) => x,
  named = false,
}: Case): Promise<void> {
  const graph = new Graph();
  const inputs = shapes.map((shape, i) =>
    graph.input(`x${i}`, "float32", named ? ["batch", ...shape.slice(1)] : shape),
  );
  const y = build(...inputs);
  const weights = graph.input("weights", "float32", y.shape);
  const weighted = y.mul(weights);
  const axes = y.shape.map((_, axis) => axis);
  const loss = axes.length > 0 ? reduceSum(weighted, axes, { keep: false }) : weighted;
  const wanted = gradients(loss, inputs);
  const outputs = Object.fromEntries(wanted.map((gradient, i) => [`d${i}`, gradient]));
  const session = await Session.create<string>(graph, { loss, ...outputs }, { device: "cpu", threads: 1 });

  const values = shapes.map((shape, i) => {
    const array = draw(shape, seed * 31 + i);
    return ndarray("float32", shape, array.data.map(domain));
  });
  const feed = (arrays: readonly NdArray[], w: NdArray) => ({
    ...Object.fromEntries(arrays.map((array, i) => [`x${i}`, array])),
    weights: w,
  });
  const batch = shapes[0]?.[0] ?? 1;
  const outShape = y.shape.map((dim) => (typeof dim === "number" ? dim : batch));
  const w = randomArray(outShape, seed + 99);
  const analytic = await session.run(feed(values, w));
  const lossAt = async (arrays: readonly NdArray[]) =>
    ((await session.run(feed(arrays, w))).loss?.data[0] as number) ?? 0;

  const h = 1e-2;
  for (const [i, value] of values.entries()) {
    const gradient = analytic[`d${i}`] as NdArray<"float32">;
    expect(gradient.shape).toEqual(value.shape);
    for (let element = 0; element < value.data.length; element++) {
      const moved = (delta: number) => {
        const copy = value.data.slice();
        copy[element] = (copy[element] as number) + delta;
        return lossAt(values.map((other, j) => (j === i ? ndarray("float32", value.shape, copy) : other)));
      };
      const numeric = ((await moved(h)) - (await moved(-h))) / (2 * h);
      const difference = Math.abs(numeric - (gradient.data[element] as number));
      expect(difference, `input ${i}, element ${element}: ${gradient.data[element]} against ${numeric}`).toBeLessThan(
        4e-3 + 1e-2 * Math.abs(numeric),
      );
    }
  }
  await session.close();
}
