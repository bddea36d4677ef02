import { expect, test } from "vitest";
import { Session } from "../../src/runtime/session.ts";
import { adamw } from "../../src/tensor/adamw.ts";
import { type NdArray, ndarray } from "../../src/tensor/array.ts";
import { Graph } from "../../src/tensor/graph.ts";
import { Random } from "../../src/tensor/random.ts";

test.each([0, 0.1])("five steps match a plain loop (weight decay %d)", async (weightDecay) => {
  const options = { beta1: 0.9, beta2: 0.99, eps: 1e-6, weightDecay };
  const size = 4;
  const graph = new Graph();
  const vector = (name: string) => graph.input(name, "float32", [size]);
  const scalar = (name: string) => graph.input(name, "float32", []);
  const next = adamw(
    vector("parameter"),
    vector("gradient"),
    { mean: vector("mean"), variance: vector("variance") },
    {
      learningRate: scalar("learningRate"),
      correction1: scalar("correction1"),
      correction2: scalar("correction2"),
    },
    options,
  );
  const outputs = { newParameter: next.parameter, newMean: next.mean, newVariance: next.variance };
  const session = await Session.create(graph, outputs);

  const random = new Random(1);
  const expected = Array.from({ length: size }, () => ({ parameter: random.normal(), mean: 0, variance: 0 }));
  const array = (key: "parameter" | "mean" | "variance") =>
    ndarray(
      "float32",
      [size],
      Float32Array.from(expected, (element) => element[key]),
    );
  let state: Record<"parameter" | "mean" | "variance", NdArray> = {
    parameter: array("parameter"),
    mean: array("mean"),
    variance: array("variance"),
  };
  for (let step = 1; step <= 5; step++) {
    const learningRate = 0.1 / step;
    const [correction1, correction2] = [1 - options.beta1 ** step, 1 - options.beta2 ** step];
    const gradient = Float32Array.from({ length: size }, () => random.normal());
    const value = (x: number) => ndarray("float32", [], Float32Array.of(x));
    const { newParameter, newMean, newVariance } = await session.run({
      ...state,
      gradient: ndarray("float32", [size], gradient),
      learningRate: value(learningRate),
      correction1: value(correction1),
      correction2: value(correction2),
    });
    state = { parameter: newParameter, mean: newMean, variance: newVariance };
    expected.forEach((element, i) => {
      const g = gradient[i] as number;
      element.mean = options.beta1 * element.mean + (1 - options.beta1) * g;
      element.variance = options.beta2 * element.variance + (1 - options.beta2) * g * g;
      const direction = element.mean / correction1 / (Math.sqrt(element.variance / correction2) + options.eps);
      element.parameter -= learningRate * (weightDecay * element.parameter + direction);
    });
    for (const key of ["parameter", "mean", "variance"] as const) {
      expected.forEach((element, i) => {
        expect(Number(state[key].data[i])).toBeCloseTo(element[key], 5);
      });
    }
  }
  await session.close();
});
