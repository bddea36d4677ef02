import fc from "fast-check";
import sharp from "sharp";
import { expect, test } from "vitest";
import type { Metric } from "../../../src/training/metrics/metrics.ts";
import { plotRun, plotRuns } from "../../../src/training/metrics/plot.ts";

const train = (step: number, loss: number, learning_rate = 1e-4): Metric => ({
  step,
  time: step,
  kind: "train",
  loss,
  learning_rate,
});
const validation = (step: number, loss: number): Metric => ({ step, time: step, kind: "validation", loss });

type Attributes = Record<string, string>;

/** The attributes of all elements of a name, and the text inside as `text`. */
function elements(svg: string, name: string): Attributes[] {
  return [...svg.matchAll(new RegExp(`<${name}((?: [\\w-]+="[^"]*")*)(?:/>|>([^<]*))`, "g"))].map(
    ([, attributes = "", text = ""]) => ({
      ...Object.fromEntries([...attributes.matchAll(/([\w-]+)="([^"]*)"/g)].map(([, key, value]) => [key, value])),
      text,
    }),
  );
}

/** The curves in the order in which they are drawn, as points on the paper. */
function paths(svg: string): { x: number; y: number }[][] {
  return elements(svg, "path").map(({ d = "" }) =>
    [...d.matchAll(/[ML]([-\d.]+),([-\d.]+)/g)].map(([, x, y]) => ({ x: Number(x), y: Number(y) })),
  );
}

/** What the axes' labels say of a place on the paper: labels of the loss end beside the panel, those of steps stand below. */
function axes(svg: string) {
  const number = (text = "") => Number(text.replaceAll(",", ""));
  const labels = elements(svg, "text").filter(({ text = "" }) => /^[-\d.,e]+$/.test(text));
  const steps = labels.filter((label) => label["text-anchor"] === "middle" && label["font-weight"] === undefined);
  const beside = labels.filter((label) => label["text-anchor"] === "end");
  // The learning rate's labels begin where labels jump down to its panel.
  const lossBottom = 64 + 20 + 28 + 320 + 10;
  const losses = beside.filter(({ y }) => Number(y) < lossBottom);
  const rates = beside.filter(({ y }) => Number(y) > lossBottom);
  const through = (from: [number, number][], map = (value: number) => value) => {
    const [first, last] = [from[0], from.at(-1)];
    if (!first || !last || first === last) throw new Error("An axis has less than two labels");
    const slope = (map(last[1]) - map(first[1])) / (last[0] - first[0]);
    return (at: number) => map(first[1]) + (at - first[0]) * slope;
  };
  return {
    step: through(steps.map(({ x, text }) => [Number(x), number(text)])),
    loss: through(losses.map(({ y, text }) => [Number(y) - 4, number(text)])),
    logLoss: through(
      losses.map(({ y, text }) => [Number(y) - 4, number(text)]),
      Math.log,
    ),
    rate: through(rates.map(({ y, text }) => [Number(y) - 4, number(text)])),
  };
}

const noisy = Array.from({ length: 40 }, (_, i) => {
  const step = 10 * (i + 1);
  return train(step, 3 + 6 * Math.exp(-i / 8) + Math.sin(i * 7), 3e-4 * (1 - i / 80));
});

test("curves lie where the axes' labels say that their values are", () => {
  const svg = plotRun({ name: "run", metrics: [...noisy, validation(200, 4.5), validation(400, 3.5)] }, { smooth: 0 });
  const { step, loss, rate } = axes(svg);
  const [each = [], smoothed = [], validated = [], rates = []] = paths(svg);
  expect(smoothed).toEqual(each);
  expect(each).toHaveLength(40);
  noisy.forEach((metric, i) => {
    if (metric.kind !== "train") return;
    expect(step(each[i]?.x ?? 0)).toBeCloseTo(metric.step, 0);
    expect(loss(each[i]?.y ?? 0)).toBeCloseTo(metric.loss, 1);
    expect(rate(rates[i]?.y ?? 0)).toBeCloseTo(metric.learning_rate, 6);
  });
  expect(validated.map(({ x }) => Math.round(step(x)))).toEqual([200, 400]);
  expect(loss(validated[0]?.y ?? 0)).toBeCloseTo(4.5, 1);
});

test("the smoothed line lies within the noise", () => {
  const metrics = Array.from({ length: 1000 }, (_, i) => train(i + 1, i % 2 === 0 ? 2 : 4));
  const svg = plotRun({ name: "run", metrics }, { smooth: 0.97 });
  const [, smoothed = []] = paths(svg);
  const { loss } = axes(svg);
  for (const { y } of smoothed.slice(200)) expect(loss(y)).toBeCloseTo(3, 1);
});

test("on a logarithmic axis equal factors are equal distances; zero and below are left out", () => {
  const metrics = [train(1, 0), train(2, 8), train(3, 4), train(4, -1), train(5, 2), train(6, 1)];
  const svg = plotRun({ name: "run", metrics }, { log: true, smooth: 0 });
  const [each = []] = paths(svg);
  expect(each).toHaveLength(4);
  const { logLoss } = axes(svg);
  [8, 4, 2, 1].forEach((value, i) => {
    expect(Math.exp(logLoss(each[i]?.y ?? 0))).toBeCloseTo(value, 1);
  });
});

test("the best validation is ringed and told", () => {
  const svg = plotRun({
    name: "run",
    metrics: [...noisy, validation(100, 5), validation(250, 3.0174), validation(400, 4)],
  });
  const { step, loss } = axes(svg);
  const [ring] = elements(svg, "circle").filter(({ fill, stroke }) => fill !== stroke);
  expect(step(Number(ring?.cx))).toBeCloseTo(250, 0);
  expect(loss(Number(ring?.cy))).toBeCloseTo(3.0174, 1);
  expect(svg).toContain(">best 3.017 at step 250</text>");
});

test("100,000 steps become two points a pixel at most, and a spike stays", async () => {
  const metrics = Array.from({ length: 100_000 }, (_, i) => train(i + 1, i === 71_234 ? 50 : 3 + Math.sin(i)));
  const svg = plotRun({ name: "run", metrics });
  const { step, loss } = axes(svg);
  const [each = []] = paths(svg);
  expect(each.length).toBeGreaterThan(1000);
  expect(each.length).toBeLessThan(2 * 960);
  const top = each.reduce((highest, point) => (point.y < highest.y ? point : highest));
  expect(loss(top.y)).toBeCloseTo(50, 0);
  expect(Math.abs(step(top.x) - 71_235)).toBeLessThan(10);
  expect(svg.length).toBeLessThan(200_000);
});

test("a run of one step is a dot, in the middle", () => {
  const svg = plotRun({ name: "run", metrics: [train(1, 3.25)] });
  expect(paths(svg)).toEqual([]);
  const { step, loss } = axes(svg);
  const [dot] = elements(svg, "circle");
  expect(step(Number(dot?.cx))).toBeCloseTo(1, 1);
  expect(loss(Number(dot?.cy))).toBeCloseTo(3.25, 2);
});

test("several runs have a colour and a name each", async () => {
  const runs = ["first <&>", 'second "\u0007"'].map((name, i) => ({
    name,
    metrics: [train(1, 5 + i), train(2, 4 + i), validation(1, 5), validation(2, 4)],
  }));
  const svg = plotRuns(runs);
  const [a, , aValidation, b, , bValidation, aRate, bRate] = elements(svg, "path").map(({ stroke }) => stroke);
  expect(new Set([a, b]).size).toBe(2);
  expect([aValidation, aRate, bValidation, bRate]).toEqual([a, a, b, b]);
  expect(svg).toContain(">first &#60;&#38;&#62;</text>");
  expect(svg).toContain(">2 runs</text>");
  await expect(sharp(Buffer.from(svg)).metadata()).resolves.toMatchObject({ width: 960 });
});

test("property: any finite metrics give an image that is valid XML, with everything inside", async () => {
  const finite = fc.oneof(
    fc.double({ noNaN: true, noDefaultInfinity: true }),
    fc.double({ noNaN: true, min: -10, max: 10 }),
    fc.constantFrom(0, 3, 3 + 1e-12, -1e308, 1e308, 5e-324),
  );
  const step = fc.oneof(fc.maxSafeNat(), fc.nat(20));
  const metric = fc.oneof(
    fc.tuple(step, finite, finite).map((values) => train(...values)),
    fc.tuple(step, finite).map((values) => validation(...values)),
  );
  const run = fc.record({ name: fc.string({ unit: "binary" }), metrics: fc.array(metric, { maxLength: 30 }) });
  const options = fc.record({ log: fc.boolean(), smooth: fc.constantFrom(0, 0.6, 0.9999) });
  await fc.assert(
    fc.asyncProperty(fc.array(run, { minLength: 1, maxLength: 4 }), options, async (runs, chosen) => {
      const svg = plotRuns(runs, chosen);
      // librsvg refuses what is not well-formed.
      const { width = 0, height = 0 } = await sharp(Buffer.from(svg)).metadata();
      expect(width).toBe(960);
      const numbers = elements(svg, "(?:path|line|circle|rect|text)").flatMap(
        ({ text: _, fill: __, d = "", ...rest }) => [
          ...["x", "x1", "x2", "cx"].map((key) => [rest[key] ?? "0", width] as const),
          ...["y", "y1", "y2", "cy"].map((key) => [rest[key] ?? "0", height] as const),
          ...[...d.matchAll(/[ML]([^,]+),([^MLZ]+)/g)].flatMap(([, x = "", y = ""]) => [
            [x, width] as const,
            [y, height] as const,
          ]),
        ],
      );
      for (const [written, limit] of numbers) {
        expect(Number(written)).toBeGreaterThanOrEqual(0);
        expect(Number(written)).toBeLessThanOrEqual(limit);
      }
    }),
    { numRuns: 60 },
  );
});
