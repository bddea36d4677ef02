/** Matrices in bytes with a scale for each row: what is written comes back, and products use it as it is. */
import { join } from "node:path";
import fc from "fast-check";
import { expect, test } from "vitest";
import { convertTensor } from "../../src/convert/convert-tensor.ts";
import { openCheckpoint } from "../../src/formats/open.ts";
import { writeSafetensors } from "../../src/formats/safetensors.ts";
import { streamSafetensors } from "../../src/formats/safetensors-writer.ts";
import { Weights } from "../../src/nn/weights.ts";
import { evaluate } from "../../src/runtime/session.ts";
import { ndarray } from "../../src/tensor/array.ts";
import { Graph } from "../../src/tensor/graph.ts";
import { native } from "../../src/tensor/quant/quantization.ts";
import { Random } from "../../src/tensor/random.ts";
import { temporaryFolder } from "../helpers/tiny-model.ts";

const folder = temporaryFolder();
let count = 0;
const fresh = () => join(folder, `${count++}.safetensors`);

/** Matrices written in bytes; the values before, and the checkpoint. */
async function written(shapes: Readonly<Record<string, readonly [number, number]>>) {
  const random = new Random(7);
  const values = Object.fromEntries(
    Object.entries(shapes).map(([name, [rows, columns]]) => [
      name,
      // Rows of quite different sizes: each has a scale of its own.
      Float32Array.from({ length: rows * columns }, (_, i) => 10 ** (Math.floor(i / columns) % 3) * random.normal()),
    ]),
  );
  const [plain, path] = [fresh(), fresh()];
  const arrays = Object.entries(shapes).map(([name, shape]) => [
    name,
    ndarray("float32", shape, values[name] as Float32Array),
  ]);
  await writeSafetensors(plain, Object.fromEntries(arrays));
  const source = await openCheckpoint(plain);
  const groups = [...source.tensors.values()].map((info) => convertTensor(source, info, "tiled-int8"));
  await streamSafetensors(path, groups);
  await source.close();
  return { values, checkpoint: await openCheckpoint(path) };
}

test("the error of each element is at most half a level of its row, for any shape", async () => {
  const size = fc.integer({ min: 1, max: 90 });
  await fc.assert(
    fc.asyncProperty(size, size, async (rows, columns) => {
      const { values, checkpoint } = await written({ w: [rows, columns] });
      expect(checkpoint.tensors.get("w")).toMatchObject({ shape: [rows, columns], storedType: "INT8" });
      const found = await checkpoint.readFloat32("w");
      await checkpoint.close();
      const exact = values.w as Float32Array;
      for (let start = 0; start < exact.length; start += columns) {
        const own = exact.subarray(start, start + columns);
        const step = Math.max(...own.map(Math.abs)) / 127;
        for (const [i, value] of own.entries()) {
          expect(Math.abs(value - (found[start + i] as number))).toBeLessThan(0.501 * step);
        }
      }
    }),
    { numRuns: 20 },
  );
});

test("joined matrices give the same product as each by itself", async () => {
  const { checkpoint } = await written({ "a.weight": [48, 32], "b.weight": [16, 32] });
  const graph = new Graph();
  const w = new Weights(graph, checkpoint, { quantization: native });
  const x = graph.input("x", "float32", ["rows", 32]);
  const matrices = [w.matrix("a.weight", [48, 32]), w.matrix("b.weight", [16, 32])];
  const joined = w.concat(matrices);
  if (!joined) throw new Error("the matrices should be joined");
  const both = joined.matmul(x);
  const second = w.matrix("b.weight", [16, 32]).matmul(x);
  const random = new Random(3);
  const data = Float32Array.from({ length: 5 * 32 }, () => random.normal());
  const found = await evaluate(graph, { both, second }, { x: ndarray("float32", [5, 32], data) });
  const matrix = await checkpoint.readFloat32("b.weight");
  await checkpoint.close();
  for (let row = 0; row < 5; row++) {
    for (let out = 0; out < 16; out++) {
      const alone = found.second.data[row * 16 + out] as number;
      expect(found.both.data[row * 64 + 48 + out]).toBeCloseTo(alone, 4);
      let exact = 0;
      let size = 0;
      for (let i = 0; i < 32; i++) {
        const term = (data[row * 32 + i] as number) * (matrix[out * 32 + i] as number);
        exact += term;
        size += term ** 2;
      }
      // What is left is that the activations are rounded.
      expect(Math.abs(alone - exact)).toBeLessThan(0.05 * Math.sqrt(size));
    }
  }
});

test("the error names missing scales", async () => {
  const path = fresh();
  await writeSafetensors(path, { "w.int8": ndarray("int8", [1, 3, 2], new Int8Array(6)) });
  await expect(openCheckpoint(path)).rejects.toThrow('its part "w.scales" is missing, expected F32 [2]');
});
