/** What the machine can do, as far as the engine's operators reach it: the bounds that `profile.ts` is compared with. */

import { Session, type SessionOptions } from "../src/runtime/session.ts";
import { ndarray } from "../src/tensor/array.ts";
import { Graph } from "../src/tensor/graph.ts";
import { matmul } from "../src/tensor/ops/matmul.ts";
import { reduceSum } from "../src/tensor/ops/reduce.ts";
import { Int8Matrix } from "../src/tensor/quant/int8.ts";

export interface Limits {
  /** Bytes a second that are read from memory in order, by a sum over 1 GB. */
  readonly bytesPerSecond: number;
  /** Operations a second of a product [2048, 4096] x [4096, 4096], in float32 and of bytes. */
  readonly operationsPerSecond: { readonly float32: number; readonly int8: number };
}

const [tokens, width] = [2048, 4096];
const rounds = 5;

export async function measureLimits(threads: number): Promise<Limits> {
  const options: SessionOptions = { threads, device: "cpu" };
  const sum = new Graph();
  const long = sum.input("x", "float32", ["rows", width]);
  const rows = 2 ** 28 / width;
  const seconds = await fastest(sum, reduceSum(long, [1]), { x: ones(rows, width) }, options);
  const operations = 2 * tokens * width * width;
  const product = async (of: "float32" | "int8") => {
    const graph = new Graph();
    const x = graph.input("x", "float32", ["rows", width]);
    const load = async () => new Float32Array(width * width).fill(1);
    const y =
      of === "int8"
        ? new Int8Matrix({ name: "weight", rows: width, columns: width, readFloat32: load }).matmul(x)
        : matmul(
            x,
            graph.weight("weight", "float32", [width, width], async () => new Uint8Array((await load()).buffer)),
          );
    return operations / (await fastest(graph, y, { x: ones(tokens, width) }, options));
  };
  return {
    bytesPerSecond: (4 * rows * width) / seconds,
    operationsPerSecond: { float32: await product("float32"), int8: await product("int8") },
  };
}

const ones = (rows: number, columns: number) =>
  ndarray("float32", [rows, columns], new Float32Array(rows * columns).fill(1));

/** Seconds of the fastest of some runs. */
async function fastest(
  graph: Graph,
  y: Parameters<typeof reduceSum>[0],
  feeds: Parameters<Session["run"]>[0],
  options: SessionOptions,
): Promise<number> {
  const session = await Session.create(graph, { y }, options);
  try {
    let best = Number.POSITIVE_INFINITY;
    for (let round = 0; round <= rounds; round++) {
      const started = performance.now();
      await session.run(feeds);
      best = Math.min(best, (performance.now() - started) / 1000);
    }
    return best;
  } finally {
    await session.close();
  }
}
