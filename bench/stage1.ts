/** A step of MiniGPT-4's first stage at a quarter of its size, against PyTorch computing what the original code does. */
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { pack } from "../src/training/packing.ts";
import { type Contest, paired } from "./paired.ts";
import { stage1Files, stage1Recipe } from "./stage1-files.ts";
import { captions as drawCaptions, operations, pictures, quarter, type Stage1Shapes } from "./stage1-shapes.ts";
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

const variants = [
  { name: "float32, pictures encoded in each step", cached: false },
  { name: "float32, features from the cache", cached: true },
];

/** Losses of both sides may differ by so much of themselves. */
const tolerance = 1e-4;

export async function benchStage1(threads: number, rounds: number): Promise<Stage1Result[]> {
  const folder = await stage1Files("quarter", quarter);
  const recipePath = join(folder, "recipe.yaml");
  await writeFile(recipePath, JSON.stringify(stage1Recipe(folder, quarter)));
  const captions = drawCaptions(quarter.llm.vocab_size);
  const task = { folder, recipePath, shapes: quarter, captions, threads };
  const script = (name: string) => join(import.meta.dirname, name);
  const results: Stage1Result[] = [];
  const work = workOf(captions);
  for (const { name, cached } of variants) {
    const theirs = await StepProcess.python(script("stage1_step.py"), [JSON.stringify(task)]);
    const ours = await StepProcess.node(script("stage1-step.ts"), [JSON.stringify({ ...task, cached })]);
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
      compare(losses.ours, losses.theirs);
      results.push({ name, step, operations: { ...work, ours: cached ? work.cached : work.ours }, peakBytes });
    } finally {
      ours.stop();
      theirs.stop();
    }
  }
  return results;
}

/** Both sides begin with the same weights and see the same batch in each step. */
function compare(ours: readonly number[], theirs: readonly number[]): void {
  ours.forEach((loss, i) => {
    const other = theirs[i] as number;
    if (Math.abs(loss - other) > tolerance * other) {
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
  const packed = operations(quarter, pictures, { places: rows * length, length, scored: targets });
  const padded = operations(quarter, pictures, {
    places: pictures * longest,
    length: longest,
    scored: pictures * longest,
  });
  return { ours: total(packed), cached: packed.projection + packed.llm, theirs: total(padded) };
}
