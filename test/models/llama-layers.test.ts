/** A layer that reads behind a cache, with the engine's own operator and without, against the network in one. */
import { describe, expect, test } from "vitest";
import { llama, logits } from "../../src/models/llama.ts";
import { cachedLayerPiece, logitsPiece } from "../../src/models/llama-layers.ts";
import { masked } from "../../src/nn/attention.ts";
import { rotaryAngles } from "../../src/nn/positions.ts";
import { Weights } from "../../src/nn/weights.ts";
import { evaluate } from "../../src/runtime/session.ts";
import { type NdArray, ndarray } from "../../src/tensor/array.ts";
import { Graph, type Value } from "../../src/tensor/graph.ts";
import { randomLlama, tinyConfig } from "../helpers/tiny-llama.ts";
import { normal } from "../helpers/weights-in-memory.ts";

/** Keys or values [1, heads, positions, size] with room for more, which is filled with what must not be seen. */
function roomy({ shape, data }: NdArray, capacity: number): NdArray<"float32"> {
  const [, heads = 0, positions = 0, size = 0] = shape;
  const held = new Float32Array(heads * capacity * size).fill(1e3);
  for (let head = 0; head < heads; head++) {
    const from = head * positions * size;
    held.set((data as Float32Array).subarray(from, from + positions * size), head * capacity * size);
  }
  return ndarray("float32", [1, heads, capacity, size], held);
}

const count = (from: number, to: number) =>
  ndarray(
    "int64",
    [1, to - from],
    BigInt64Array.from({ length: to - from }, (_, i) => BigInt(from + i)),
  );

// The operator has heads whose size is a multiple of 8.
describe.each([8, 6])("with heads of size %d", (headDim) => {
  const config = { ...tinyConfig(20), headDim, numHiddenLayers: 1 };
  const source = randomLlama(config, 3);
  const x = normal([1, 7, config.hiddenSize], 4);

  /** The pieces over what follows `used` positions that an earlier run has given. */
  async function behind(
    used: number,
    past: { readonly keys: NdArray; readonly values: NdArray },
    which: "all" | "selected",
  ) {
    const { graph, out, keys, values } = cachedLayerPiece(source, config, { index: 0, outputs: which });
    const capacity = used + 4;
    const mask = Float32Array.from({ length: capacity }, (_, i) => (i < used ? 0 : masked));
    const feeds = {
      x: ndarray("float32", [1, 7 - used, config.hiddenSize], x.data.slice(used * config.hiddenSize)),
      positions: count(used, 7),
      keys: roomy(past.keys, capacity),
      values: roomy(past.values, capacity),
      pastMask: ndarray("float32", [1, capacity], mask),
      outputIndices: ndarray("int64", [1], BigInt64Array.of(BigInt(6 - used))),
      ...rotaryAngles(config.maxPositionEmbeddings, headDim, config.ropeTheta),
    };
    return evaluate(graph, { out, newKeys: keys, newValues: values }, feeds);
  }

  test("layers with a cache match the whole network, with the logits of a selected position", async () => {
    const graph = new Graph();
    const w = new Weights(graph, source);
    const input = graph.input("x", "float32", [1, "sequence", config.hiddenSize]);
    const positions = graph.input("positions", "int64", [1, "sequence"]);
    const { hidden, cache } = llama(w, input, positions, config);
    const { keys, values } = cache[0] as { keys: Value; values: Value };
    const outputs = { scores: logits(w, hidden, config), newKeys: keys, newValues: values };
    const whole = await evaluate(graph, outputs, { x, positions: count(0, 7) });

    const none = ndarray("float32", [1, config.numKeyValueHeads, 0, headDim], new Float32Array());
    const all = await behind(0, { keys: none, values: none }, "all");
    const [, heads = 0, , size = 0] = all.newKeys.shape;
    expect([heads, size]).toEqual([config.numKeyValueHeads, headDim]);
    const first = (of: NdArray, length: number) => {
      const rows = roomy(of, 7).data;
      const parts = Array.from({ length: heads }, (_, head) => [
        ...rows.subarray(head * 7 * size, (head * 7 + length) * size),
      ]);
      return ndarray("float32", [1, heads, length, size], Float32Array.from(parts.flat()));
    };
    const rest = await behind(3, { keys: first(all.newKeys, 3), values: first(all.newValues, 3) }, "selected");
    expect(rest.out.shape).toEqual([1, config.hiddenSize]);
    const piece = logitsPiece(source, config);
    const { scores } = await evaluate(piece.graph, { scores: piece.out }, { x: rest.out });

    const last = whole.scores.data.slice(6 * config.vocabSize) as Float32Array;
    expectClose(scores.data, last);
    expectClose(all.newKeys.data, whole.newKeys.data);
    expectClose(all.newValues.data, whole.newValues.data);
    for (let head = 0; head < heads; head++) {
      const end = (head + 1) * 7 * size;
      expectClose(
        rest.newKeys.data.slice(head * 4 * size, (head + 1) * 4 * size),
        whole.newKeys.data.slice(end - 4 * size, end),
      );
    }
  });
});

function expectClose(found: ArrayLike<number | bigint>, expected: ArrayLike<number | bigint>): void {
  expect(found.length).toBe(expected.length);
  const largest = Math.max(...Array.from(expected, (value, i) => Math.abs(Number(found[i]) - Number(value))));
  expect(largest).toBeLessThan(1e-4);
}
