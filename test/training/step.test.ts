import { expect, test } from "vitest";
import { Random } from "../../src/tensor/random.ts";
import { NotFiniteError, type TrainingStep } from "../../src/training/step.ts";
import { byHand, createStep, type Example, optimizer, regressionFeeds, start } from "../helpers/regression.ts";

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

test("a step is AdamW with weight decay on the matrix but not on the vector", async () => {
  const step = await createStep();
  const examples = examplesOf(8, 1);
  const { loss, gradient } = byHand(examples, start);
  const rate = 0.01;
  const result = await step.run([regressionFeeds(examples)], rate);
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

test("training converges to the line of the examples", async () => {
  const step = await createStep({ weightDecay: 0 });
  let last = 0;
  for (let i = 0; i < 400; i++) ({ loss: last } = await step.run([regressionFeeds(examplesOf(32, i))], 0.02));
  expect(step.state.step).toBe(400);
  expect(last).toBeLessThan(0.03);
  const { weight = [], bias = [] } = numbers(step).parameters;
  expectClose([...weight, ...bias], [2, -1, 0.5], 1);
  await step.close();
});

test.each([{ maxGradNorm: undefined }, { maxGradNorm: 0.3 }])(
  "accumulated micro-batches give the step of one large batch (maxGradNorm: $maxGradNorm)",
  async ({ maxGradNorm }) => {
    const limit = maxGradNorm === undefined ? {} : { maxGradNorm };
    const [whole, parted] = [await createStep(limit), await createStep(limit, { accumulates: true })];
    for (let i = 0; i < 6; i++) {
      const examples = examplesOf(12, i);
      // Of different sizes, as after broken images were left out.
      const cuts = [0, 1 + (i % 3), 6, 12];
      const batches = cuts.slice(1).map((end, k) => regressionFeeds(examples.slice(cuts[k], end), examples.length));
      const one = await whole.run([regressionFeeds(examples)], 0.01);
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

test("each micro-batch is requested after the one before has been run", async () => {
  const step = await createStep({}, { accumulates: true });
  const events: string[] = [];
  async function* batches() {
    for (let i = 0; i < 3; i++) {
      events.push(`make ${i}`);
      yield regressionFeeds(examplesOf(4, i), 12);
      events.push(`done ${i}`);
    }
  }
  await step.run(batches(), 0.01);
  expect(events).toEqual(["make 0", "done 0", "make 1", "done 1", "make 2", "done 2"]);
  expect(step.state.step).toBe(1);
  await step.close();
});

test.each([{ accumulates: false }, { accumulates: true }])(
  "gradients longer than the limit are clipped to it, shorter ones are not (accumulates: $accumulates)",
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
      const step = await createStep({ maxGradNorm: limit }, session);
      const { gradNorm } = await step.run([regressionFeeds(examples)], 0.01);
      // The reported norm is that before clipping.
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
  "a loss that is not finite leaves the state unchanged, and training can continue (accumulates: $accumulates)",
  async (session) => {
    const [step, undisturbed] = [await createStep({}, session), await createStep({}, session)];
    const good = examplesOf(6, 5);
    const [first] = good as [Example];
    for (const one of [step, undisturbed]) await one.run([regressionFeeds(good)], 0.01);
    const before = numbers(step);
    for (const y of [Number.NaN, Number.POSITIVE_INFINITY, 1e30]) {
      const failed = step.run([regressionFeeds([...good, { ...first, y }])], 0.01);
      await expect(failed).rejects.toThrow(NotFiniteError);
      await expect(failed).rejects.toThrow(/^The loss of step 2 is (NaN|Infinity)$/);
      expect(numbers(step)).toEqual(before);
    }
    for (const one of [step, undisturbed]) await one.run([regressionFeeds(good)], 0.01);
    expect(numbers(step)).toEqual(numbers(undisturbed));
    await step.close();
    await undisturbed.close();
  },
);

test("a gradient that is not finite is an error", async () => {
  const step = await createStep();
  // The loss is 1e36; the square of the gradient's length is beyond float32.
  const huge = { x: [1e18, 0], y: 2e18 } as const;
  const before = numbers(step);
  await expect(step.run([regressionFeeds([huge])], 0.01)).rejects.toThrow("The gradient norm of step 1 is Infinity");
  expect(numbers(step)).toEqual(before);
  await step.close();
});

test("a batch that cannot be loaded leaves the state unchanged", async () => {
  const [step, undisturbed] = [
    await createStep({}, { accumulates: true }),
    await createStep({}, { accumulates: true }),
  ];
  const good = examplesOf(6, 5);
  async function* failing() {
    yield regressionFeeds(good);
    throw new Error("the disk is gone");
  }
  await expect(step.run(failing(), 0.01)).rejects.toThrow("the disk is gone");
  for (const one of [step, undisturbed]) await one.run([regressionFeeds(good)], 0.01);
  expect(numbers(step)).toEqual(numbers(undisturbed));
  await step.close();
  await undisturbed.close();
});

test("a wrong number of batches is an error", async () => {
  const [step, accumulating] = [await createStep(), await createStep({}, { accumulates: true })];
  const batch = regressionFeeds(examplesOf(3, 1));
  await expect(step.run([batch, batch], 0.01)).rejects.toThrow(/Expected one batch, got 2.*accumulates/);
  await expect(step.run([], 0.01)).rejects.toThrow(/got 0/);
  await expect(accumulating.run([], 0.01)).rejects.toThrow(/got 0/);
  await step.close();
  await accumulating.close();
});
