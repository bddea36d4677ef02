/** Encoding images with EVA-CLIP g and the Q-Former at full size (random weights), against PyTorch in float32. */
import { join } from "node:path";
import { type Contest, paired } from "./paired.ts";
import { stage1Files } from "./stage1-files.ts";
import { original, type Stage1Shapes } from "./stage1-shapes.ts";
import { StepProcess } from "./step-process.ts";

/** What our side is given; theirs looks at no quantization. */
export interface EncoderTask {
  readonly folder: string;
  readonly shapes: Stage1Shapes;
  readonly quantization: "float32" | "int8";
  readonly threads: number;
}

export interface EncoderAnswer {
  readonly milliseconds: number;
  /** Largest resident memory of the process so far. */
  readonly peakBytes: number;
  /** The Q-Former's output for the first image. */
  readonly first: readonly number[];
}

export interface EncoderResult {
  readonly quantization: EncoderTask["quantization"];
  readonly images: number;
  /** Milliseconds for all images. */
  readonly time: Contest;
  /** Cosine similarity of both sides' outputs. */
  readonly similarity: number;
  readonly peakBytes: { readonly ours: number; readonly theirs: number };
}

/** Both sides in turns, each in a process of its own, with one image and with eight. */
export async function benchEncoder(threads: number, rounds: number): Promise<EncoderResult[]> {
  const folder = await stage1Files("encoder", original, { llm: false });
  const results: EncoderResult[] = [];
  for (const quantization of ["float32", "int8"] as const) {
    const task: EncoderTask = { folder, shapes: original, quantization, threads };
    const theirs = await StepProcess.python(join(import.meta.dirname, "encoder_step.py"), [JSON.stringify(task)]);
    const ours = await StepProcess.node(join(import.meta.dirname, "encoder-step.ts"), [JSON.stringify(task)]);
    try {
      for (const images of [1, 8]) {
        const last: Record<"ours" | "theirs", EncoderAnswer | undefined> = { ours: undefined, theirs: undefined };
        const run = async (side: "ours" | "theirs", process: StepProcess) => {
          const answer = (await process.ask(`${images}`)) as EncoderAnswer;
          last[side] = answer;
          return answer.milliseconds;
        };
        const time = await paired(
          () => run("ours", ours),
          () => run("theirs", theirs),
          rounds,
        );
        if (!last.ours || !last.theirs) throw new Error("A side gave no answer");
        results.push({
          quantization,
          images,
          time,
          similarity: cosine(last.ours.first, last.theirs.first),
          peakBytes: { ours: last.ours.peakBytes, theirs: last.theirs.peakBytes },
        });
      }
    } finally {
      ours.stop();
      theirs.stop();
    }
  }
  return results;
}

function cosine(a: readonly number[], b: readonly number[]): number {
  const dot = (x: readonly number[], y: readonly number[]) =>
    x.reduce((sum, value, i) => sum + value * (y[i] as number), 0);
  return dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b));
}
