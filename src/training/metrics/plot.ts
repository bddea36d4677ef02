/** Plots training runs as SVG: loss and learning rate over the steps. */
import { line } from "d3-shape";
import {
  createTicks,
  element,
  fitText,
  formatNumber,
  linearScale,
  logScale,
  type Scale,
  stepScale,
  stepTicks,
  textAt,
  textWidth,
} from "./axes.ts";
import { best, type Curves, type Point, readCurves, smooth, thin } from "./curves.ts";
import type { Metric } from "./metrics.ts";

export interface PlotOptions {
  /** Logarithmic loss axis; values of zero and below are left out. @default false */
  readonly log?: boolean;
  /** Weight of earlier values in the smoothed line, from 0 (no smoothing) to below 1. @default 0.97 */
  readonly smooth?: number;
}

export interface Run {
  readonly name: string;
  readonly metrics: readonly Metric[];
}

/** The curves of a run and the colours of its lines. */
interface Drawn extends Curves {
  readonly name: string;
  readonly smoothed: readonly Point[];
  readonly colour: string;
  readonly validationColour: string;
}

interface Strokes extends Readonly<Record<string, string | number>> {
  readonly stroke: string;
}

interface Box {
  readonly left: number;
  readonly top: number;
  readonly width: number;
  readonly height: number;
}

const width = 960;
const margin = { left: 64, right: 36 };
const inner = width - margin.left - margin.right;
const legendTop = 64;
const lossHeight = 320;
const rateHeight = 110;

const ink = { title: "#1f2328", text: "#57606a", axis: "#afb8c1", grid: "#eaeef2" };
const colours = ["#3a6fb0", "#d9703a", "#3f9a78", "#a4578f", "#b8952b", "#4aa3b5", "#7a68b8", "#7d848c"];
/** Colour of the validation line of a single run. */
const second = "#d9703a";
/** Dashes of the validation lines where the colour identifies the run. */
const dashes = "5 4";

/** One run; its name is the title. @returns an SVG document, 960 pixels wide */
export function plotRun({ name, metrics }: Run, options: PlotOptions = {}): string {
  return plotRuns([{ name, metrics }], options);
}

/** Runs in one image, each in its colour. @returns an SVG document, 960 pixels wide */
export function plotRuns(runs: readonly Run[], { log = false, smooth: weight = 0.97 }: PlotOptions = {}): string {
  const drawn = runs.map(({ name, metrics }, i): Drawn => {
    const curves = readCurves(metrics);
    const shown = (points: readonly Point[]) => (log ? points.filter(({ value }) => value > 0) : points);
    const loss = shown(curves.loss);
    const colour = colours[i % colours.length] as string;
    return {
      name,
      loss,
      smoothed: smooth(loss, weight),
      validation: shown(curves.validation),
      learningRate: curves.learningRate,
      colour,
      validationColour: runs.length === 1 ? second : colour,
    };
  });
  const legend = drawLegend(drawn, weight);
  const lossBox = { left: margin.left, top: legendTop + legend.height + 28, width: inner, height: lossHeight };
  const rateBox = { left: margin.left, top: lossBox.top + lossHeight + 48, width: inner, height: rateHeight };
  const height = rateBox.top + rateHeight + 52;

  const x = stepScale(
    drawn.flatMap((run) => [...run.loss, ...run.validation, ...run.learningRate].map(({ step }) => step)),
    [margin.left, margin.left + inner],
  );
  const losses = drawn.flatMap((run) => [...run.loss, ...run.validation].map(({ value }) => value));
  const rates = drawn.flatMap((run) => run.learningRate.map(({ value }) => value));
  const down = ({ top, height }: Box): [number, number] => [top + height, top];
  const lossScale = log ? logScale(losses, down(lossBox)) : linearScale(losses, down(lossBox), 6);
  const rateScale = linearScale(rates.length > 0 ? [0, ...rates] : [], down(rateBox), 3);
  const title = runs.length === 1 ? (runs[0]?.name ?? "") : `${runs.length} runs`;

  return element(
    "svg",
    {
      xmlns: "http://www.w3.org/2000/svg",
      width,
      height,
      viewBox: `0 0 ${width} ${height}`,
      role: "img",
      "font-family": "Inter, Helvetica, Arial, 'DejaVu Sans', sans-serif",
      "font-size": 12,
      fill: ink.text,
    },
    element("rect", { width, height, fill: "#ffffff" }),
    textAt(margin.left, 40, fitText(title, inner, 18), { "font-size": 18, "font-weight": 600, fill: ink.title }),
    legend.drawing,
    drawPanel(lossBox, x, lossScale, 6, log ? "loss (nats, logarithmic)" : "loss (nats)", losses.length),
    ...drawn.map((run) => drawLoss(run, x, lossScale, runs.length)),
    drawBest(drawn, lossBox, x, lossScale),
    drawPanel(rateBox, x, rateScale, 3, "learning rate", rates.length),
    ...drawn.map((run) => drawLine(run.learningRate, x, rateScale, { stroke: run.colour, "stroke-width": 1.75 })),
    ...stepTicks(x, inner).map(({ at, label }) =>
      textAt(at, rateBox.top + rateHeight + 18, label, { "text-anchor": "middle" }),
    ),
    textAt(margin.left + inner, rateBox.top + rateHeight + 38, "step", { "text-anchor": "end" }),
  );
}

/** Heading, grid and labels of a panel. */
function drawPanel(box: Box, x: Scale, y: Scale, ticks: number, heading: string, values: number): string {
  const { left, top, width, height } = box;
  const bottom = top + height;
  const rule = (x1: number, y1: number, x2: number, y2: number, stroke: string) =>
    element("line", { x1, y1, x2, y2, stroke });
  return element(
    "g",
    {},
    textAt(left, top - 14, heading, { "font-weight": 600 }),
    ...stepTicks(x, width).map(({ at }) => rule(at, top, at, bottom, ink.grid)),
    ...(values === 0
      ? [textAt(left + width / 2, top + height / 2, "no values", { "text-anchor": "middle" })]
      : createTicks(y, ticks).flatMap(({ at, label }) => [
          rule(left, at, left + width, at, ink.grid),
          textAt(left - 10, at + 4, label, { "text-anchor": "end" }),
        ])),
    rule(left, bottom, left + width, bottom, ink.axis),
  );
}

/** Each step faint, the smoothed line over it, validation on top. */
function drawLoss({ loss, smoothed, validation, colour, validationColour }: Drawn, x: Scale, y: Scale, runs: number) {
  const few = validation.length * 9 < inner;
  const strokes = { stroke: validationColour, "stroke-width": 1.75 };
  return element(
    "g",
    {},
    drawLine(loss, x, y, { stroke: colour, "stroke-width": 1, "stroke-opacity": runs > 1 ? 0.18 : 0.32 }),
    drawLine(smoothed, x, y, { stroke: colour, "stroke-width": 2 }),
    drawLine(validation, x, y, runs > 1 ? { ...strokes, "stroke-dasharray": dashes } : strokes),
    ...(few ? validation.map((point) => dot(x(point.step), y(point.value), 2.5, validationColour)) : []),
  );
}

function drawLine(points: readonly Point[], x: Scale, y: Scale, strokes: Strokes): string {
  const [first] = points;
  if (!first) return "";
  if (points.length === 1) return dot(x(first.step), y(first.value), 2.5, strokes.stroke);
  const path = line<Point>(
    ({ step }) => x(step),
    ({ value }) => y(value),
  ).digits(2);
  const d = path(thin(points, x)) ?? "";
  return element("path", { d, fill: "none", "stroke-linejoin": "round", "stroke-linecap": "round", ...strokes });
}

function dot(cx: number, cy: number, r: number, colour: string, fill = colour): string {
  return element("circle", { cx, cy, r, fill, stroke: colour, "stroke-width": 1.75 });
}

/** A ring around each run's best validation loss, with its value where there is room. */
function drawBest(runs: readonly Drawn[], box: Box, x: Scale, y: Scale): string {
  const taken: Box[] = [];
  const marks = runs.flatMap(({ validation, validationColour }) => {
    const least = best(validation);
    if (!least) return [];
    const value = formatNumber(least.value);
    const text = runs.length > 1 ? value : `best ${value} at step ${least.step.toLocaleString("en")}`;
    const [cx, cy] = [x(least.step), y(least.value)];
    const size = { width: textWidth(text), height: 15 };
    const left = Math.min(Math.max(cx - size.width / 2, box.left + 4), box.left + box.width - size.width);
    const above = [24, 42, 60, 78, 96].map((distance) => cy - distance);
    const places = [...above, cy + 10, cy + 28].map((top) => ({ left, top, ...size }));
    const isFree = (place: Box) => place.top > box.top && !taken.some((other) => overlap(place, other));
    const place = places.find(isFree) ?? { left, top: cy - 24, ...size };
    taken.push(place);
    const halo = { stroke: "#ffffff", "stroke-width": 4, "stroke-linejoin": "round", "paint-order": "stroke" };
    const label = { ...halo, fill: validationColour, "font-weight": 600, "text-anchor": "middle" };
    return [
      dot(cx, cy, 5, validationColour, "#ffffff"),
      textAt(place.left + size.width / 2, place.top + 11, text, label),
    ];
  });
  return element("g", {}, ...marks);
}

function overlap(a: Box, b: Box): boolean {
  return a.left < b.left + b.width && b.left < a.left + a.width && a.top < b.top + b.height && b.top < a.top + a.height;
}

/** The legend, in as many rows as it needs. */
function drawLegend(runs: readonly Drawn[], weight: number): { drawing: string; height: number } {
  const smoothed = weight > 0 ? `smoothed (${weight})` : "each step";
  const [only, ...others] = runs;
  const entries: (readonly [label: string, strokes: Strokes])[] = [];
  if (only && others.length === 0) {
    if (weight > 0) entries.push(["each step", { stroke: only.colour, "stroke-opacity": 0.4 }]);
    entries.push([smoothed, { stroke: only.colour }]);
    if (only.validation.length > 0) entries.push(["validation", { stroke: only.validationColour }]);
  } else {
    for (const { name, colour } of runs) entries.push([name, { stroke: colour }]);
    entries.push([`training, ${smoothed}`, { stroke: ink.text }]);
    entries.push(["validation", { stroke: ink.text, "stroke-dasharray": dashes }]);
  }
  const rowHeight = 20;
  let [left, top] = [margin.left, legendTop];
  const items = entries.map(([label, strokes]) => {
    const text = fitText(label, 300);
    const needed = 32 + textWidth(text);
    if (left + needed > margin.left + inner) [left, top] = [margin.left, top + rowHeight];
    const x1 = left;
    left += needed + 20;
    return (
      element("line", { x1, y1: top, x2: x1 + 24, y2: top, "stroke-width": 2, ...strokes }) +
      textAt(x1 + 32, top + 4, text)
    );
  });
  return { drawing: element("g", {}, ...items), height: top - legendTop + rowHeight };
}
