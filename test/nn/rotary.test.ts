import { expect, test } from "vitest";
import { rotaryTables } from "../../src/nn/positions.ts";
import { evaluate } from "../../src/runtime/session.ts";
import { ndarray } from "../../src/tensor/array.ts";
import { Graph } from "../../src/tensor/graph.ts";
import { rotaryEmbedding } from "../../src/tensor/ops/attention.ts";
import { normal } from "../helpers/weights-in-memory.ts";

test("rotates element i and element i + half of each head by position / base^(2 i / headSize)", async () => {
  const [headSize, heads, base] = [6, 2, 100];
  const half = headSize / 2;
  const graph = new Graph();
  const { cos, sin } = rotaryTables(graph, 20, headSize, base);
  const positions = [3, 0, 19];
  const x = normal([1, positions.length, heads * headSize], 1);
  const order = ndarray("int64", [1, positions.length], BigInt64Array.from(positions, BigInt));
  const input = graph.input("x", "float32", x.shape);
  const y = rotaryEmbedding(input, graph.constant(order), cos, sin, heads);
  const { data } = (await evaluate(graph, { y }, { x })).y;
  positions.forEach((position, row) => {
    for (let head = 0; head < heads; head++) {
      for (let i = 0; i < half; i++) {
        const at = (row * heads + head) * headSize + i;
        const angle = position / base ** ((2 * i) / headSize);
        const [a, b] = [x.data[at] as number, x.data[at + half] as number];
        expect(data[at]).toBeCloseTo(a * Math.cos(angle) - b * Math.sin(angle), 4);
        expect(data[at + half]).toBeCloseTo(b * Math.cos(angle) + a * Math.sin(angle), 4);
      }
    }
  });
});
