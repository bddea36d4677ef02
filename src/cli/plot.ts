/** `minigpt4 plot`: an image of how training runs went. */
import { mkdir, rename, stat, writeFile } from "node:fs/promises";
import { basename, dirname, extname, join, parse, resolve } from "node:path";
import { type Command, Option } from "commander";
import sharp from "sharp";
import { best, curvesOf, type Point } from "../training/metrics/curves.ts";
import { readMetrics } from "../training/metrics/metrics.ts";
import { plotRuns, type Run } from "../training/metrics/plot.ts";
import { numberBetween } from "./options.ts";

interface PlotFlags {
  readonly output?: string;
  readonly log?: boolean;
  readonly smooth: number;
  readonly json?: boolean;
}

export function registerPlot(program: Command): void {
  program
    .command("plot")
    .summary("draw the loss of training runs")
    .description(
      "Draws loss, validation loss and learning rate of a training run over its steps, also while it runs; several runs in one " +
        "image, to compare them. Prints the image's path.",
    )
    .argument("<run...>", "a run's output folder, or a metrics.jsonl")
    .addOption(
      new Option("-o, --output <file>", "an .svg or .png; plot.svg in the run's folder if left out").conflicts("json"),
    )
    .option("--log", "a logarithmic axis for the loss")
    .option("--smooth <weight>", "weight of the past in the smoothed line; 0 for none", numberBetween(0, 0.9999), 0.97)
    .option("--json", "print first, last and best losses as one JSON object, and draw nothing")
    .addHelpText(
      "after",
      `
Examples:
  minigpt4 plot runs/nano
  minigpt4 plot runs/first runs/second -o comparison.png
  minigpt4 plot runs/nano --json`,
    )
    .action(plot);
}

async function plot(paths: readonly string[], { output, log, smooth, json }: PlotFlags): Promise<void> {
  if (!json && !output && paths.length > 1) {
    throw new Error("Several runs in one image need a place for it: add -o FILE.svg");
  }
  if (output) checkEnding(output);
  const files = await Promise.all(paths.map(metricsFile));
  const names = files.map(runName);
  const telling = new Set(names).size === names.length ? names : files;
  const runs = await Promise.all(
    files.map(async (file, i) => ({ name: telling[i] ?? file, metrics: await readRun(file) })),
  );
  if (json) {
    console.log(JSON.stringify({ runs: runs.map((run, i) => ({ path: files[i], ...summary(run) })) }, null, 2));
    return;
  }
  const [first = ""] = files;
  const path = output ?? join(dirname(first), `${parse(first).name.replace(/^metrics\b/, "plot")}.svg`);
  await writeImage(path, plotRuns(runs, { log, smooth }));
  console.log(path);
}

function checkEnding(path: string): void {
  if (/\.(svg|png)$/i.test(path)) return;
  throw new Error(
    `${path}: a plot is an .svg or a .png, not ${extname(path) ? `a ${extname(path)}` : "without ending"}`,
  );
}

async function metricsFile(path: string): Promise<string> {
  if (!(await stat(path)).isDirectory()) return path;
  const file = join(path, "metrics.jsonl");
  const found = await stat(file).catch(() => undefined);
  if (found) return file;
  throw new Error(`${path} has no metrics.jsonl; give the output folder of a run of minigpt4 train`);
}

async function readRun(file: string): Promise<Run["metrics"]> {
  const metrics = await readMetrics(file);
  const { loss, validation } = curvesOf(metrics);
  if (loss.length + validation.length > 0) return metrics;
  throw new Error(`${file} has no losses yet; plot it after the run's first step`);
}

/** The folder's name; for another file than its metrics.jsonl with that file's. */
function runName(file: string): string {
  const folder = basename(dirname(resolve(file)));
  return basename(file) === "metrics.jsonl" ? folder : `${folder}/${parse(file).name}`;
}

function summary({ name, metrics }: Run) {
  const { loss, validation } = curvesOf(metrics);
  return {
    name,
    steps: metrics.reduce((most, { step }) => Math.max(most, step), 0),
    train: ends(loss),
    validation: ends(validation),
  };
}

/** First, last and best of a loss; null where it was never measured. */
function ends(points: readonly Point[]) {
  const written = (point: Point | undefined) => (point ? { step: point.step, loss: point.value } : null);
  return { first: written(points[0]), last: written(points.at(-1)), best: written(best(points)) };
}

/** PNG has twice the SVG's pixels in each direction, so that it is sharp on today's screens. */
async function writeImage(path: string, svg: string): Promise<void> {
  const isPng = extname(path).toLowerCase() === ".png";
  const data = isPng ? await sharp(Buffer.from(svg), { density: 144 }).png().toBuffer() : svg;
  await mkdir(dirname(path), { recursive: true });
  await writeFile(`${path}.partial`, data);
  await rename(`${path}.partial`, path);
}
