import fc from "fast-check";
import { expect, test } from "vitest";
import { evaluate } from "../../../src/runtime/session.ts";
import { ndarray } from "../../../src/tensor/array.ts";
import { Graph } from "../../../src/tensor/graph.ts";
import { dequantizeInt4, matmulInt4, quantizeInt4 } from "../../../src/tensor/quant/int4.ts";
import { Random } from "../../../src/tensor/random.ts";

const normals = (count: number, random: Random) => Float32Array.from({ length: count }, () => random.normal());

test("no element moves by more than one step of its block", () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 4 }),
      fc.integer({ min: 1, max: 70 }),
      fc.constantFrom(16, 32),
      fc.nat(),
      (rows, columns, blockSize, seed) => {
        const values = normals(rows * columns, new Random(seed));
        const back = dequantizeInt4(quantizeInt4(values, rows, columns, blockSize));
        for (let i = 0; i < values.length; i++) {
          const row = Math.floor(i / columns);
          const start = i - ((i % columns) % blockSize);
          const block = values.subarray(start, Math.min(start + blockSize, (row + 1) * columns));
          const step = (Math.max(0, ...block) - Math.min(0, ...block)) / 15;
          // The zero point is rounded too, so an end of the range may be cut by half a step.
          expect(Math.abs((back[i] as number) - (values[i] as number))).toBeLessThanOrEqual(step * 1.001);
        }
      },
    ),
  );
});

test("values on the grid of their block stay as they are", () => {
  const values = Float32Array.from({ length: 64 }, (_, i) => ((i % 16) - 5) / 4);
  expect(dequantizeInt4(quantizeInt4(values, 2, 32, 32))).toEqual(values);
  expect(dequantizeInt4(quantizeInt4(new Float32Array(32), 1, 32, 32))).toEqual(new Float32Array(32));
});

test("the product equals that with the dequantised matrix, up to the rounding of activations to 8 bits", async () => {
  for (const columns of [64, 172]) {
    const random = new Random(columns);
    const [rows, blockSize] = [24, 32];
    const matrix = quantizeInt4(normals(rows * columns, random), rows, columns, blockSize);
    const x = ndarray("float32", [3, columns], normals(3 * columns, random));
    const graph = new Graph();
    const source = { name: "w", rows, columns, blockSize, load: async () => matrix };
    const y = matmulInt4(graph.input("x", "float32", ["n", columns]), source);
    const found = (await evaluate(graph, { y }, { x })).y.data as Float32Array;
    const dense = dequantizeInt4(matrix);
    for (let i = 0; i < 3; i++) {
      for (let row = 0; row < rows; row++) {
        let sum = 0;
        for (let k = 0; k < columns; k++) {
          sum += (x.data[i * columns + k] as number) * (dense[row * columns + k] as number);
        }
        expect(Math.abs((found[i * rows + row] as number) - sum)).toBeLessThan(0.01 * columns ** 0.5 * 3);
      }
    }
  }
});

test("a matrix is read once for a model, and not kept for the next one", async () => {
  const graph = new Graph();
  let reads = 0;
  const load = async () => {
    reads++;
    return quantizeInt4(new Float32Array(8 * 64).fill(1), 8, 64, 32);
  };
  const y = matmulInt4(graph.input("x", "float32", [1, 64]), { name: "w", rows: 8, columns: 64, blockSize: 32, load });
  const x = ndarray("float32", [1, 64], new Float32Array(64).fill(1));
  for (const model of [1, 2]) {
    const found = await evaluate(graph, { y }, { x });
    expect(found.y.data).toEqual(new Float32Array(8).fill(64));
    expect(reads).toBe(model);
  }
});

test("a matrix of another width than its operand's is named", () => {
  const graph = new Graph();
  const source = { name: "up", rows: 8, columns: 64, blockSize: 32, load: () => Promise.reject() };
  expect(() => graph.scope("mlp", () => matmulInt4(graph.input("x", "float32", [2, 32]), source))).toThrow(
    'in mlp: product of "x" float32 [2, 32] with "up" [8, 64]: the inner sizes differ',
  );
});
