/** Linear regression, y = x W^T + b with W [1, 2] and b [1]: the smallest loss that has a matrix and a vector to train. */
import { type NdArray, ndarray } from "../../src/tensor/array.ts";
import { Graph, type Value } from "../../src/tensor/graph.ts";
import { matmul } from "../../src/tensor/ops/matmul.ts";
import { reduceSum } from "../../src/tensor/ops/reduce.ts";
import { type OptimizerOptions, type StepOptions, TrainingStep } from "../../src/training/step.ts";
import { initialState } from "../../src/training/training-state.ts";

export interface Example {
  readonly x: readonly [number, number];
  readonly y: number;
}

export const optimizer: OptimizerOptions = { beta1: 0.9, beta2: 0.999, eps: 1e-8, weightDecay: 0.1 };

export const start = { weight: [0.5, -0.25], bias: [0.1] } as const;

/** The graph: the sum of (x W^T + b - y)^2, times `share`. */
export function regression(): { graph: Graph; loss: Value; trained: Map<string, Value> } {
  const graph = new Graph();
  const trained = new Map([
    ["weight", graph.input("weight", "float32", [1, 2])],
    ["bias", graph.input("bias", "float32", [1])],
  ]);
  const [weight, bias] = [...trained.values()] as [Value, Value];
  const x = graph.input("x", "float32", ["rows", 2]);
  const y = graph.input("y", "float32", ["rows", 1]);
  const difference = matmul(x, weight, { transB: true }).add(bias).sub(y);
  const sum = reduceSum(difference.mul(difference), [0, 1], { keep: false });
  return { graph, loss: sum.mul(graph.input("share", "float32", [])), trained };
}

/** The inputs for examples. @param total examples of the step, where it has several micro-batches */
export function regressionFeeds(examples: readonly Example[], total = examples.length): Record<string, NdArray> {
  return {
    x: floats(
      [examples.length, 2],
      examples.flatMap(({ x }) => x),
    ),
    y: floats(
      [examples.length, 1],
      examples.map(({ y }) => y),
    ),
    share: floats([], [1 / total]),
  };
}

export function createStep(
  options: Partial<OptimizerOptions> = {},
  more: Partial<StepOptions> = {},
): Promise<TrainingStep> {
  const state = initialState({ weight: floats([1, 2], start.weight), bias: floats([1], start.bias) });
  return TrainingStep.create({ ...regression(), state, optimizer: { ...optimizer, ...options }, ...more });
}

/** Loss and gradient [weight 0, weight 1, bias] by the formula, in double precision. */
export function byHand(
  examples: readonly Example[],
  { weight, bias }: { readonly weight: ArrayLike<number>; readonly bias: ArrayLike<number> },
): { loss: number; gradient: [number, number, number] } {
  let loss = 0;
  const gradient: [number, number, number] = [0, 0, 0];
  for (const { x, y } of examples) {
    const difference = x[0] * Number(weight[0]) + x[1] * Number(weight[1]) + Number(bias[0]) - y;
    loss += difference ** 2 / examples.length;
    [x[0], x[1], 1].forEach((slope, i) => {
      gradient[i] = (gradient[i] as number) + (2 * difference * slope) / examples.length;
    });
  }
  return { loss, gradient };
}

function floats(shape: readonly number[], values: readonly number[]): NdArray<"float32"> {
  return ndarray("float32", shape, Float32Array.from(values));
}
