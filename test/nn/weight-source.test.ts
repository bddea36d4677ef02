import { expect, test } from "vitest";
import { ndarray } from "../../src/tensor/array.ts";
import type { BlockSource } from "../../src/tensor/quant/blocks.ts";
import type { WeightSource } from "../../src/tensor/weight-source.ts";
import { overlayWeights } from "../../src/tensor/weight-source.ts";
import { inMemory } from "../helpers/weights-in-memory.ts";

const vector = (...values: number[]) => ndarray("float32", [values.length], Float32Array.from(values));

const trained = inMemory({ both: vector(1, 2), own: vector(3) }, "trained.safetensors");
const frozen = inMemory({ both: vector(4, 5, 6), other: vector(7) }, "frozen.safetensors");

test("where two sources have a weight, the first one's counts: its shape and its values", async () => {
  const layered = overlayWeights([trained, frozen]);
  expect([...layered.tensors.keys()].sort()).toEqual(["both", "other", "own"]);
  expect(layered.tensors.get("both")?.shape).toEqual([2]);
  expect([...(await layered.readFloat32("both"))]).toEqual([1, 2]);
  expect([...(await layered.readFloat32("other"))]).toEqual([7]);
  const reversed = overlayWeights([frozen, trained]);
  expect(reversed.tensors.get("both")?.shape).toEqual([3]);
  expect([...(await reversed.readFloat32("both"))]).toEqual([4, 5, 6]);
});

test("a weight that none has is named, with all sources", () => {
  const layered = overlayWeights([trained, frozen]);
  expect(() => layered.readFloat32("missing")).toThrow(
    'trained.safetensors and frozen.safetensors has no tensor "missing"',
  );
});

test("stored blocks are those of the source that the weight comes from", () => {
  const asked: string[] = [];
  const blocks: WeightSource["blocks"] = (name) => {
    asked.push(name);
    return undefined as BlockSource | undefined;
  };
  const layered = overlayWeights([trained, { ...frozen, blocks }]);
  for (const name of ["both", "own", "other", "missing"]) expect(layered.blocks?.(name)).toBe(undefined);
  expect(asked).toEqual(["other"]);
});

test("layers of layers are layers", async () => {
  const layered = overlayWeights([overlayWeights([trained]), overlayWeights([frozen, trained])]);
  expect([...(await layered.readFloat32("both"))]).toEqual([1, 2]);
  expect(overlayWeights([]).tensors.size).toBe(0);
});
