import { expect, test } from "vitest";
import { embedding, linear, linears } from "../../src/nn/layers.ts";
import { Weights } from "../../src/nn/weights.ts";
import { evaluate } from "../../src/runtime/session.ts";
import { type NdArray, ndarray } from "../../src/tensor/array.ts";
import { gradients } from "../../src/tensor/grad/gradients.ts";
import { Graph, type Value } from "../../src/tensor/graph.ts";
import { reduceSum } from "../../src/tensor/ops/reduce.ts";
import { inMemory, normal } from "../helpers/weights-in-memory.ts";

const x = normal([2, 3, 4], 1);
const arrays = {
  "q.weight": normal([6, 4], 2),
  "k.weight": normal([2, 4], 3),
  "v.weight": normal([5, 4], 4),
  "o.weight": normal([3, 4], 5),
  "o.bias": normal([3], 6),
};

/** x [rows, columns] times the transposed weight. */
function product(x: NdArray<"float32">, weight: NdArray<"float32">): number[] {
  const [out = 0, size = 0] = weight.shape;
  return Array.from({ length: (x.data.length / size) * out }, (_, i) => {
    const [row, column] = [Math.floor(i / out), i % out];
    let sum = 0;
    for (let k = 0; k < size; k++) {
      sum += (x.data[row * size + k] as number) * (weight.data[column * size + k] as number);
    }
    return sum;
  });
}

function expectClose(found: NdArray | undefined, expected: ArrayLike<number>): void {
  expect(found?.data.length).toBe(expected.length);
  Array.from(found?.data ?? [], Number).forEach((value, i) => {
    expect(value).toBeCloseTo(expected[i] as number, 4);
  });
}

test("linear multiplies by the weight and adds an optional bias", async () => {
  const graph = new Graph();
  const w = new Weights(graph, inMemory(arrays));
  const input = graph.input("x", "float32", ["batch", 3, 4]);
  const outputs = { plain: linear(w.at("q"), input, 6), biased: linear(w.at("o"), input, 3) };
  expect(outputs.plain.shape).toEqual(["batch", 3, 6]);
  const found = await evaluate(graph, outputs, { x });
  expectClose(found.plain, product(x, arrays["q.weight"]));
  const biased = product(x, arrays["o.weight"]).map((value, i) => value + (arrays["o.bias"].data[i % 3] as number));
  expectClose(found.biased, biased);
});

test("several layers, as one product (frozen) or separately (trainable), give the same values and gradients", async () => {
  const run = async (trained: boolean) => {
    const graph = new Graph();
    const w = new Weights(graph, inMemory(arrays), { trainable: () => trained });
    const input = graph.input("x", "float32", ["batch", 3, 4]);
    const [q, k, v] = linears(w, input, { q: 6, k: 2, v: 5 }) as [Value, Value, Value];
    const sum = (value: Value) => reduceSum(value.mul(value), [0, 1, 2], { keep: false });
    const [dx] = gradients(sum(q).add(sum(k)).add(sum(v)), [input]) as [Value];
    const feeds = trained
      ? { x, ...Object.fromEntries(Object.entries(arrays).filter(([name]) => w.trained.has(name))) }
      : { x };
    const products = graph.nodes.filter(({ op }) => op.includes("MatMul")).length;
    return { products, ...(await evaluate(graph, { q, k, v, dx }, feeds)) };
  };
  const [frozen, trained] = [await run(false), await run(true)];
  expect(frozen.products).toBeLessThan(trained.products);
  expectClose(frozen.q, product(x, arrays["q.weight"]));
  for (const name of ["q", "k", "v", "dx"] as const) {
    expect(frozen[name].shape).toEqual(trained[name].shape);
    expectClose(frozen[name], Array.from(trained[name].data, Number));
  }
});

test("embedding returns rows of its table", async () => {
  const graph = new Graph();
  const w = new Weights(graph, inMemory({ weight: normal([5, 3], 7) }));
  const rows = embedding(w, graph.input("ids", "int64", ["n"]), 5, 3);
  const ids = ndarray("int64", [2], BigInt64Array.of(4n, 0n));
  const table = normal([5, 3], 7).data;
  expectClose((await evaluate(graph, { rows }, { ids })).rows, [...table.slice(12, 15), ...table.slice(0, 3)]);
});
