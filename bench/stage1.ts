/** A step of MiniGPT-4's first stage at a quarter of its size, against PyTorch computing what the original code does. */
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { pack } from "../src/training/stages/sequences.ts";
import { type Contest, paired } from "./paired.ts";
import { stage1Files, stage1Recipe } from "./stage1-files.ts";
import { captions as drawCaptions, images, operations, quarter, type Stage1Shapes } from "./stage1-shapes.ts";
import { StepProcess } from "./step-process.ts";

/** What both sides are given. */
export interface Stage1Task {
  readonly folder: string;
  readonly recipePath: string;
  readonly shapes: Stage1Shapes;
  readonly captions: readonly (readonly number[])[];
  readonly threads: number;
  /** Whether the features of the frozen part are there already; ours only. */
  readonly cached: boolean;
}

export interface StepAnswer {
  readonly milliseconds: number;
  readonly loss: number;
  /** Largest resident memory of the process so far. */
  readonly peakBytes: number;
}

export interface Stage1Result {
  readonly name: string;
  /** Milliseconds a step. */
  readonly step: Contest;
  /** Floating-point operations that each side does. */
  readonly operations: { readonly ours: number; readonly theirs: number };
  readonly peakBytes: { readonly ours: number; readonly theirs: number };
}

/** Arithmetic of the frozen products on our side; PyTorch's is float32 always. */
type Quantization = "float32" | "int8";

const variants: readonly { readonly name: string; readonly quantization: Quantization; readonly cached: boolean }[] = [
  { name: "float32, images encoded in each step", quantization: "float32", cached: false },
  { name: "float32, features from the cache", quantization: "float32", cached: true },
  { name: "int8, images encoded in each step", quantization: "int8", cached: false },
  { name: "int8, features from the cache", quantization: "int8", cached: true },
];

/** By how much of itself a loss may differ from PyTorch's. */
const tolerance: Readonly<Record<Quantization, number>> = { float32: 1e-4, int8: 0.02 };

export async function benchStage1(threads: number, rounds: number): Promise<Stage1Result[]> {
  const folder = await stage1Files("quarter", quarter);
  const captions = drawCaptions(quarter.llm.vocab_size);
  const work = workOf(captions);
  const results: Stage1Result[] = [];
  for (const { name, quantization, cached } of variants) {
    const recipePath = join(folder, `${quantization}.yaml`);
    await writeFile(recipePath, JSON.stringify(stage1Recipe(folder, quarter, quantization)));
    const task: Stage1Task = { folder, recipePath, shapes: quarter, captions, threads, cached };
    const { step, peakBytes } = await contest(task, tolerance[quantization], rounds);
    results.push({ name, step, operations: { ...work, ours: cached ? work.cached : work.ours }, peakBytes });
  }
  return results;
}

/** Both sides in turns, each in a process of its own. */
async function contest(task: Stage1Task, tolerated: number, rounds: number) {
  const argument = [JSON.stringify(task)];
  const theirs = await StepProcess.python(join(import.meta.dirname, "stage1_step.py"), argument);
  const ours = await StepProcess.node(join(import.meta.dirname, "stage1-step.ts"), argument);
  const losses = { ours: [] as number[], theirs: [] as number[] };
  const peakBytes = { ours: 0, theirs: 0 };
  const run = async (side: "ours" | "theirs", process: StepProcess) => {
    const answer = (await process.ask("step")) as StepAnswer;
    losses[side].push(answer.loss);
    peakBytes[side] = answer.peakBytes;
    return answer.milliseconds;
  };
  try {
    const step = await paired(
      () => run("ours", ours),
      () => run("theirs", theirs),
      rounds,
    );
    compare(losses.ours, losses.theirs, tolerated);
    return { step, peakBytes };
  } finally {
    ours.stop();
    theirs.stop();
  }
}

/** Both sides begin with the same weights and see the same batch in each step. */
function compare(ours: readonly number[], theirs: readonly number[], tolerated: number): void {
  ours.forEach((loss, i) => {
    const other = theirs[i] as number;
    if (!(Math.abs(loss - other) <= tolerated * other)) {
      throw new Error(`The losses of step ${i + 1} differ: ${loss} is ours, ${other} that of PyTorch`);
    }
  });
}

/** Operations of one step: ours packs captions into rows, theirs pads them to the longest. */
function workOf(captions: readonly (readonly number[])[]) {
  const prefix = 1 + quarter.qformer.num_query_tokens;
  const lengths = captions.map((caption) => prefix + caption.length);
  const targets = captions.reduce((sum, caption) => sum + caption.length, 0);
  // The last token of a caption predicts nothing, and is left out.
  const { rows, length } = pack(lengths.map((tokens) => tokens - 1));
  const longest = Math.max(...lengths);
  const total = (parts: Readonly<Record<string, number>>) => Object.values(parts).reduce((sum, part) => sum + part);
  const packed = operations(quarter, images, { places: rows * length, length, scored: targets });
  const padded = operations(quarter, images, {
    places: images * longest,
    length: longest,
    scored: images * longest,
  });
  return { ours: total(packed), cached: packed.projection + packed.llm, theirs: total(padded) };
}
