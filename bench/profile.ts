/** Where the time of a model goes, by operator, and how near that is to what the machine can do. */
import { mkdtemp, readdir, readFile, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openImageEncoder, openLanguageModel } from "../src/generation/load.ts";
import { readImage } from "../src/images/decode.ts";
import { openModelFolder } from "../src/models/model-folder.ts";
import type { SessionOptions } from "../src/runtime/session.ts";

export interface OperatorTime {
  readonly operator: string;
  /** Of one run, all nodes together. */
  readonly milliseconds: number;
  /** Floating-point operations of one run; 0 where the operator is no product. */
  readonly operations: number;
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
 * Reads an image, a prompt of `context` tokens, and tokens behind it one by one. Profiling itself costs time where operators are
 * small.
 */
export async function benchProfile(path: string, threads: number, context = 256): Promise<Profile[]> {
  const folder = await openModelFolder(path);
  const options: SessionOptions = { threads, device: "cpu" };
  const { config } = folder.llm;
  const prompt = Array.from({ length: context }, (_, i) => 300 + ((i * 7919) % (config.vocabSize - 300)));
  try {
    const images = await profiled(async (profile, timed) => {
      const reader = await openImageEncoder(folder, { ...options, profile });
      const pixels = await readImage(join(import.meta.dirname, "..", "examples", "images", "cat.jpg"));
      await reader.encode(pixels);
      await timed("an image", 1, () => reader.encode(pixels));
      await reader.close();
    });
    const texts = await profiled(async (profile, timed) => {
      const llm = await openLanguageModel(folder.llm, path, { ...options, profile, quantization: folder.quantization });
      await llm.forward([prompt], llm.newCache());
      const cache = llm.newCache();
      await timed(`a prompt of ${context} tokens`, 1, () => llm.forward([prompt], cache));
      await timed(`a token behind ${context}`, written, async () => {
        for (let i = 0; i < written; i++) await llm.forward([prompt.slice(i, i + 1)], cache);
      });
      await llm.close();
    });
    return [...images, ...texts];
  } finally {
    await folder.close();
  }
}

/** Times work that is done so many times, and remembers when that was. */
type Timed = (part: string, times: number, work: () => Promise<unknown>) => Promise<void>;

interface Span {
  readonly part: string;
  readonly times: number;
  /** In microseconds of the system's clock. */
  readonly from: number;
  readonly to: number;
}

async function profiled(work: (profile: string, timed: Timed) => Promise<void>): Promise<Profile[]> {
  const place = await mkdtemp(join(tmpdir(), "minigpt4-profile-"));
  const spans: Span[] = [];
  const now = () => 1000 * (performance.timeOrigin + performance.now());
  try {
    await work(join(place, "p"), async (part, times, own) => {
      const from = now();
      await own();
      spans.push({ part, times, from, to: now() });
    });
    const events: EngineEvent[] = [];
    for (const file of await readdir(place)) {
      // The engine counts from the moment at which it opens the file.
      const begun = 1000 * (await stat(join(place, file))).birthtimeMs;
      const own: EngineEvent[] = JSON.parse(await readFile(join(place, file), "utf8"));
      for (const event of own) events.push({ ...event, ts: event.ts + begun });
    }
    return spans.map((span) => profileOf(span, events));
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
  };
}

function profileOf({ part, times, from, to }: Span, events: readonly EngineEvent[]): Profile {
  const operators = new Map<string, OperatorTime>();
  for (const { name, ts, dur, args } of events) {
    if (!args?.op_name || !name.endsWith("_kernel_time")) continue;
    if (ts < from || ts > to) continue;
    const known = operators.get(args.op_name);
    operators.set(args.op_name, {
      operator: args.op_name,
      milliseconds: (known?.milliseconds ?? 0) + dur / 1000 / times,
      operations: (known?.operations ?? 0) + operationsOf(args) / times,
    });
  }
  return {
    part,
    milliseconds: (to - from) / 1000 / times,
    operators: [...operators.values()].sort((a, b) => b.milliseconds - a.milliseconds),
  };
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
