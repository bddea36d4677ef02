import { expect, test } from "vitest";
import { resizePositions } from "../../src/nn/positions.ts";
import { evaluate } from "../../src/runtime/session.ts";
import { ndarray } from "../../src/tensor/array.ts";
import { Graph } from "../../src/tensor/graph.ts";

/** What `torch.nn.functional.interpolate(mode="bicubic", align_corners=False)` of PyTorch 2.x gives for the grid below. */
const expected = new Map([
  [3, [0.434322, 1.261294, 2.13811, 0.922309, 1.590576, 0.554218, 1.410297, 1.650708, 1.429241]],
  [
    6,
    [
      -0.30284, 0.980279, 1.818834, 0.659465, 1.49802, 2.781139, 0.857015, 0.866455, 1.078858, 1.49585, 1.864014,
      2.02474, 1.493891, 0.881655, 0.802777, 2.04655, 1.700376, 0.828527, 0.191004, 1.173033, 1.909662, 1.30731,
      0.476707, -0.063461, 0.827881, 1.188232, 1.604736, 1.713786, 1.143799, 0.546007, 1.987736, 1.074409, 0.836745,
      2.410091, 2.31665, 1.543403,
    ],
  ],
]);
const grid = Array.from({ length: 16 }, (_, i) => ((i * 7) % 11) / 4);

test.each([...expected])("a 4 x 4 grid of positions is resized to a side of %d as in PyTorch", async (to, values) => {
  const graph = new Graph();
  // Two columns: the grid, and its negative, to see that columns are not mixed.
  const data = Float32Array.from([9, -9, ...grid.flatMap((value) => [value, -value])]);
  const y = resizePositions(graph.input("positions", "float32", [1, 17, 2]), 4, to);
  const found = (await evaluate(graph, { y }, { positions: ndarray("float32", [1, 17, 2], data) })).y;
  expect(found.shape).toEqual([1, 1 + to * to, 2]);
  const wanted = [9, -9, ...values.flatMap((value) => [value, -value])];
  for (const [i, value] of wanted.entries()) expect(found.data[i]).toBeCloseTo(value, 5);
});

test("positions of the same number are unchanged", () => {
  const positions = new Graph().input("positions", "float32", [1, 17, 2]);
  expect(resizePositions(positions, 4, 4)).toBe(positions);
});
