import { expect, test } from "vitest";
import { Random } from "../../src/tensor/random.ts";
import { NotFiniteError, type TrainingStep } from "../../src/training/step.ts";
import { byHand, type Example, feedsOf, optimizer, start, stepOf } from "../helpers/regression.ts";

function examplesOf(count: number, seed: number): Example[] {
  const random = new Random(seed);
  return Array.from({ length: count }, () => {
    const x = [random.normal(), random.normal()] as const;
    return { x, y: 2 * x[0] - x[1] + 0.5 + 0.1 * random.normal() };
  });
}

/** All numbers of the state. */
function numbers({ state: { step, parameters, means, variances } }: TrainingStep) {
  const values = (arrays: typeof parameters) =>
    Object.fromEntries(Object.entries(arrays).map(([name, { data }]) => [name, [...data]]));
  return { step, parameters: values(parameters), means: values(means), variances: values(variances) };
}

const gradientOf = ({ state: { means } }: TrainingStep) =>
  [...(means.weight?.data ?? []), ...(means.bias?.data ?? [])].map((mean) => mean / (1 - optimizer.beta1));

function expectClose(found: readonly number[], expected: readonly number[], digits = 6): void {
  expect(found).toHaveLength(expected.length);
  found.forEach((value, i) => {
    expect(value).toBeCloseTo(expected[i] as number, digits);
  });
}

test("a step is AdamW on the gradient, with weight decay on the matrix and none on the vector", async () => {
  const step = await stepOf();
  const examples = examplesOf(8, 1);
  const { loss, gradient } = byHand(examples, start);
  const rate = 0.01;
  const result = await step.run([() => feedsOf(examples)], rate);
  expect(result.loss).toBeCloseTo(loss, 5);
  expect(result.gradNorm).toBeCloseTo(Math.hypot(...gradient), 5);
  expectClose(gradientOf(step), gradient, 5);
  // The first step of AdamW goes by the learning rate in the gradient's direction.
  const signs = gradient.map(Math.sign);
  const decayed = start.weight.map((value) => value * (1 - rate * optimizer.weightDecay));
  const { parameters } = numbers(step);
  expectClose(
    parameters.weight ?? [],
    decayed.map((value, i) => value - rate * (signs[i] as number)),
  );
  expectClose(parameters.bias ?? [], [start.bias[0] - rate * (signs[2] as number)]);
  await step.close();
});

test("steps find the line that the examples lie on", async () => {
  const step = await stepOf({ weightDecay: 0 });
  let last = 0;
  for (let i = 0; i < 400; i++) ({ loss: last } = await step.run([() => feedsOf(examplesOf(32, i))], 0.02));
  expect(step.state.step).toBe(400);
  expect(last).toBeLessThan(0.03);
  const { weight = [], bias = [] } = numbers(step).parameters;
  expectClose([...weight, ...bias], [2, -1, 0.5], 1);
  await step.close();
});

test.each([{ maxGradNorm: undefined }, { maxGradNorm: 0.3 }])(
  "a step over several batches is a step over all of them at once (longest gradient $maxGradNorm)",
  async ({ maxGradNorm }) => {
    const limit = maxGradNorm === undefined ? {} : { maxGradNorm };
    const [whole, parted] = [await stepOf(limit), await stepOf(limit, { accumulates: true })];
    for (let i = 0; i < 6; i++) {
      const examples = examplesOf(12, i);
      // Of different sizes, as after broken images were left out.
      const cuts = [0, 1 + (i % 3), 6, 12];
      const batches = cuts.slice(1).map((end, k) => () => feedsOf(examples.slice(cuts[k], end), examples.length));
      const one = await whole.run([() => feedsOf(examples)], 0.01);
      const other = await parted.run(batches, 0.01);
      expectClose([other.loss, other.gradNorm], [one.loss, one.gradNorm], 5);
    }
    const [one, other] = [numbers(whole), numbers(parted)];
    for (const kind of ["parameters", "means", "variances"] as const) {
      for (const name of ["weight", "bias"]) expectClose(other[kind][name] ?? [], one[kind][name] ?? []);
    }
    await whole.close();
    await parted.close();
  },
);

test("batches are made one after the other, each when its turn comes", async () => {
  const step = await stepOf({}, { accumulates: true });
  let [made, atOnce, most] = [0, 0, 0];
  const batch = async () => {
    most = Math.max(most, ++atOnce);
    await new Promise((resolve) => setImmediate(resolve));
    atOnce--;
    made++;
    return feedsOf(examplesOf(4, made), 12);
  };
  await step.run([batch, batch, batch], 0.01);
  expect([made, most, step.state.step]).toEqual([3, 1, 1]);
  await step.close();
});

test.each([{ accumulates: false }, { accumulates: true }])(
  "a gradient that is too long is shortened to the limit, a short one is left alone (accumulates: $accumulates)",
  async (session) => {
    const examples = examplesOf(10, 3);
    const { gradient } = byHand(examples, start);
    const length = Math.hypot(...gradient);
    for (const [limit, factor] of [
      [length / 4, 1 / 4],
      [length * 0.999, 0.999],
      [length * 1.001, 1],
      [length * 50, 1],
    ] as const) {
      const step = await stepOf({ maxGradNorm: limit }, session);
      const { gradNorm } = await step.run([() => feedsOf(examples)], 0.01);
      // What is reported is the length before.
      expect(gradNorm).toBeCloseTo(length, 4);
      expectClose(
        gradientOf(step),
        gradient.map((value) => value * factor),
        5,
      );
      const squares = [...(step.state.variances.weight?.data ?? []), ...(step.state.variances.bias?.data ?? [])];
      expectClose(
        squares,
        gradient.map((value) => (1 - optimizer.beta2) * (value * factor) ** 2),
        6,
      );
      await step.close();
    }
  },
);

test.each([{ accumulates: false }, { accumulates: true }])(
  "a loss that is no number leaves the state as it was, and the run can go on (accumulates: $accumulates)",
  async (session) => {
    const [step, undisturbed] = [await stepOf({}, session), await stepOf({}, session)];
    const good = examplesOf(6, 5);
    const [first] = good as [Example];
    for (const one of [step, undisturbed]) await one.run([() => feedsOf(good)], 0.01);
    const before = numbers(step);
    for (const y of [Number.NaN, Number.POSITIVE_INFINITY, 1e30]) {
      const failed = step.run([() => feedsOf([...good, { ...first, y }])], 0.01);
      await expect(failed).rejects.toThrow(NotFiniteError);
      await expect(failed).rejects.toThrow(/^The loss of step 2 is (NaN|Infinity)$/);
      expect(numbers(step)).toEqual(before);
    }
    for (const one of [step, undisturbed]) await one.run([() => feedsOf(good)], 0.01);
    expect(numbers(step)).toEqual(numbers(undisturbed));
    await step.close();
    await undisturbed.close();
  },
);

test("a gradient that is no number is told as such", async () => {
  const step = await stepOf();
  // The loss is 1e36; the square of the gradient's length is beyond float32.
  const huge = { x: [1e18, 0], y: 2e18 } as const;
  const before = numbers(step);
  await expect(step.run([() => feedsOf([huge])], 0.01)).rejects.toThrow(
    "The length of the gradient of step 1 is Infinity",
  );
  expect(numbers(step)).toEqual(before);
  await step.close();
});

test("a batch that cannot be made leaves the state as it was", async () => {
  const [step, undisturbed] = [await stepOf({}, { accumulates: true }), await stepOf({}, { accumulates: true })];
  const good = examplesOf(6, 5);
  const failing = () => Promise.reject(new Error("the disk is gone"));
  await expect(step.run([() => feedsOf(good), failing], 0.01)).rejects.toThrow("the disk is gone");
  for (const one of [step, undisturbed]) await one.run([() => feedsOf(good)], 0.01);
  expect(numbers(step)).toEqual(numbers(undisturbed));
  await step.close();
  await undisturbed.close();
});

test("a wrong number of batches is an error", async () => {
  const [step, accumulating] = [await stepOf(), await stepOf({}, { accumulates: true })];
  const batch = () => feedsOf(examplesOf(3, 1));
  await expect(step.run([batch, batch], 0.01)).rejects.toThrow(/takes one batch, but was given 2.*accumulates/);
  await expect(step.run([], 0.01)).rejects.toThrow(/given 0/);
  await expect(accumulating.run([], 0.01)).rejects.toThrow(/given 0/);
  await step.close();
  await accumulating.close();
});
