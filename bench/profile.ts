/** Where the time of a model goes, by operator, and how near that is to what the machine can do. */
import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openImageReader } from "../src/chat/create.ts";
import { readPicture } from "../src/images/picture.ts";
import { openModelFolder } from "../src/models/model-folder.ts";
import type { SessionOptions } from "../src/tensor/session.ts";

export interface OperatorTime {
  readonly operator: string;
  /** Of one run, all nodes together. */
  readonly milliseconds: number;
  /** Floating-point operations of one run; 0 where the operator is no product. */
  readonly operations: number;
  /** Bytes of constants that are multiplied with, as the operator reads them. */
  readonly weightBytes: number;
}

export interface Profile {
  readonly part: string;
  /** Of one run, from the call to its answer. */
  readonly milliseconds: number;
  /** The slowest first. */
  readonly operators: readonly OperatorTime[];
}

/** Tokens that are written, each a run. */
const written = 16;

/**
 * Reads a picture, a prompt of `context` tokens, and tokens behind it one by one. Profiling itself costs time where operators are
 * small.
 */
export async function benchProfile(path: string, threads: number, context = 256): Promise<Profile[]> {
  const folder = await openModelFolder(path);
  const options: SessionOptions = { threads, device: "cpu", weightsFolder: path };
  try {
    const [picture] = await profiled([["a picture", 1]], async (profile) => {
      const reader = await openImageReader(folder, { ...options, profile });
      const pixels = await readPicture(join(import.meta.dirname, "..", "examples", "pictures", "cat.jpg"));
      for (let round = 0; round < 2; round++) await reader.read(pixels);
      await reader.release();
    });
    const parts: Part[] = [
      [`a prompt of ${context} tokens`, 1],
      [`a token behind ${context}`, written],
    ];
    const text = await profiled(parts, async (profile) => {
      const { checkpoint, config } = folder.llm;
      const llm = await createLanguageModel(checkpoint, config, { ...options, profile, precision: folder.precision });
      const prompt = Array.from({ length: context }, (_, i) => 300 + ((i * 7919) % (config.vocabSize - 300)));
      await llm.read([prompt], llm.newCache());
      const cache = llm.newCache();
      await llm.read([prompt], cache);
      for (let i = 0; i < written; i++) await llm.read([prompt.slice(i, i + 1)], cache);
      await llm.release();
    });
    return [picture as Profile, ...text];
  } finally {
    await folder.close();
  }
}

/** What is read, and in how many runs. */
type Part = readonly [name: string, runs: number];

/** The last runs of `work`, in the order of `parts`; those before them warm up. */
async function profiled(parts: readonly Part[], work: (profile: string) => Promise<void>): Promise<Profile[]> {
  const place = await mkdtemp(join(tmpdir(), "minigpt4-profile-"));
  try {
    await work(join(place, "p"));
    const [file] = await readdir(place);
    if (!file) throw new Error("The engine wrote no profile");
    const events: EngineEvent[] = JSON.parse(await readFile(join(place, file), "utf8"));
    const runs = events.filter(({ name }) => name === "model_run").sort((a, b) => a.ts - b.ts);
    let end = runs.length;
    return parts
      .toReversed()
      .map(([part, count]) => {
        const own = runs.slice(end - count, end);
        end -= count;
        return profileOf(part, own, events);
      })
      .toReversed();
  } finally {
    await rm(place, { recursive: true, force: true });
  }
}

/** As ONNX Runtime writes it; times are in microseconds. */
interface EngineEvent {
  readonly name: string;
  readonly ts: number;
  readonly dur: number;
  readonly args?: {
    readonly op_name?: string;
    readonly input_type_shape?: readonly Readonly<Record<string, readonly number[]>>[];
    readonly output_type_shape?: readonly Readonly<Record<string, readonly number[]>>[];
    readonly parameter_size?: string;
  };
}

function profileOf(part: string, runs: readonly EngineEvent[], events: readonly EngineEvent[]): Profile {
  const operators = new Map<string, OperatorTime>();
  for (const { name, ts, dur, args } of events) {
    if (!args?.op_name || !name.endsWith("_kernel_time")) continue;
    if (!runs.some((run) => run.ts <= ts && ts < run.ts + run.dur)) continue;
    const known = operators.get(args.op_name);
    operators.set(args.op_name, {
      operator: args.op_name,
      milliseconds: (known?.milliseconds ?? 0) + dur / 1000 / runs.length,
      operations: (known?.operations ?? 0) + operationsOf(args) / runs.length,
      weightBytes:
        (known?.weightBytes ?? 0) + (products.has(args.op_name) ? Number(args.parameter_size ?? 0) / runs.length : 0),
    });
  }
  const milliseconds = runs.reduce((sum, { dur }) => sum + dur, 0) / 1000 / runs.length;
  return { part, milliseconds, operators: [...operators.values()].sort((a, b) => b.milliseconds - a.milliseconds) };
}

const products = new Set([
  "MatMul",
  "FusedMatMul",
  "Gemm",
  "FusedGemm",
  "MatMulNBits",
  "MatMulIntegerToFloat",
  "Conv",
  "FusedConv",
]);

/** Two for each element of the output and each of the row that it is the product of. */
function operationsOf({
  op_name: operator = "",
  input_type_shape: inputs,
  output_type_shape: outputs,
}: NonNullable<EngineEvent["args"]>): number {
  if (!products.has(operator)) return 0;
  const shape = (of: typeof inputs, i: number): readonly number[] => Object.values(of?.[i] ?? {})[0] ?? [];
  const size = (dims: readonly number[]) => dims.reduce((product, dim) => product * dim, 1);
  const [left, right] = [shape(inputs, 0), shape(inputs, 1)];
  const inner = operator.endsWith("Conv") ? size(right.slice(1)) : (left.at(-1) ?? 0);
  return 2 * size(shape(outputs, 0)) * inner;
}
