/** `minigpt4 plot`: plots the loss of training runs. */
import { mkdir, stat } from "node:fs/promises";
import { basename, dirname, extname, join, parse, resolve } from "node:path";
import { type Command, Option } from "commander";
import { writeFileAtomic } from "../files/atomic.ts";
import { best, type Point, readCurves } from "../training/metrics/curves.ts";
import { readMetrics } from "../training/metrics/metrics.ts";
import { plotRuns, type Run } from "../training/metrics/plot.ts";
import type { CommandContext } from "./context.ts";
import { numberBetween } from "./options.ts";

interface PlotFlags {
  readonly output?: string;
  readonly log?: boolean;
  readonly smooth: number;
  readonly json?: boolean;
}

export function definePlot(command: Command, context: CommandContext): void {
  command
    .description(
      "Plot loss, validation loss and learning rate of training runs, also while they run, and print the path of the image. " +
        "Several runs are compared in one image.",
    )
    .argument("<run...>", "output folder of a run, or a metrics.jsonl")
    .addOption(
      new Option("-o, --output <file>", "an .svg or .png file (default: plot.svg in the run's folder)").conflicts(
        "json",
      ),
    )
    .option("--log", "use a logarithmic axis for the loss")
    .option(
      "--smooth <weight>",
      "weight of earlier steps in the smoothed line; 0 turns it off",
      numberBetween(0, 0.9999),
      0.97,
    )
    .option("--json", "print the first, last and best losses as one JSON object instead of plotting")
    .addHelpText(
      "after",
      `
Examples:
  minigpt4 plot runs/nano
  minigpt4 plot runs/first runs/second -o comparison.png
  minigpt4 plot runs/nano --json`,
    )
    .action((paths, flags) => plot(context, paths, flags));
}

async function plot(
  context: CommandContext,
  paths: readonly string[],
  { output, log, smooth, json }: PlotFlags,
): Promise<void> {
  if (!json && !output && paths.length > 1) {
    throw new Error("Plotting several runs needs an output file: add -o FILE.svg");
  }
  if (output) checkExtension(output);
  const files = await Promise.all(paths.map(metricsFile));
  const names = files.map(runName);
  const labels = new Set(names).size === names.length ? names : files;
  const runs = await Promise.all(
    files.map(async (file, i) => ({ name: labels[i] ?? file, metrics: await readRun(file) })),
  );
  if (json) {
    context.print(JSON.stringify({ runs: runs.map((run, i) => ({ path: files[i], ...summary(run) })) }, null, 2));
    return;
  }
  const [first = ""] = files;
  const path = output ?? join(dirname(first), `${parse(first).name.replace(/^metrics\b/, "plot")}.svg`);
  await writeImage(path, plotRuns(runs, { log, smooth }));
  context.print(path);
}

function checkExtension(path: string): void {
  if (/\.(svg|png)$/i.test(path)) return;
  throw new Error(`${path}: expected a file name that ends in .svg or .png, found ${extname(path) || "no extension"}`);
}

async function metricsFile(path: string): Promise<string> {
  if (!(await stat(path)).isDirectory()) return path;
  const file = join(path, "metrics.jsonl");
  const found = await stat(file).catch(() => undefined);
  if (found) return file;
  throw new Error(`${path} has no metrics.jsonl; pass the output folder of a training run`);
}

async function readRun(file: string): Promise<Run["metrics"]> {
  const metrics = await readMetrics(file);
  const { loss, validation } = readCurves(metrics);
  if (loss.length + validation.length > 0) return metrics;
  throw new Error(`${file} has no losses yet; wait for the first step of the run`);
}

/** The name of the run's folder, with the file's name if that is not metrics.jsonl. */
function runName(file: string): string {
  const folder = basename(dirname(resolve(file)));
  return basename(file) === "metrics.jsonl" ? folder : `${folder}/${parse(file).name}`;
}

function summary({ name, metrics }: Run) {
  const { loss, validation } = readCurves(metrics);
  return {
    name,
    steps: metrics.reduce((most, { step }) => Math.max(most, step), 0),
    train: ends(loss),
    validation: ends(validation),
  };
}

/** First, last and best loss; null if it was never measured. */
function ends(points: readonly Point[]) {
  const toJson = (point: Point | undefined) => (point ? { step: point.step, loss: point.value } : null);
  return { first: toJson(points[0]), last: toJson(points.at(-1)), best: toJson(best(points)) };
}

/** Writes an SVG, or a PNG with twice its pixels in each direction for high-density screens. */
async function writeImage(path: string, svg: string): Promise<void> {
  const isPng = extname(path).toLowerCase() === ".png";
  const data = isPng ? await toPng(svg) : svg;
  await mkdir(dirname(path), { recursive: true });
  await writeFileAtomic(path, data);
}

async function toPng(svg: string): Promise<Uint8Array> {
  const { default: sharp } = await import("sharp");
  return sharp(Buffer.from(svg), { density: 144 }).png().toBuffer();
}
