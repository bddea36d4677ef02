import { expect, test } from "vitest";
import { ndarray } from "../../src/tensor/array.ts";
import { TiledInt8Matrix } from "../../src/tensor/quant/tiled-int8.ts";
import { overlayWeights, UsedWeights } from "../../src/tensor/weight-source.ts";
import { inMemory } from "../helpers/weights-in-memory.ts";

const vector = (...values: number[]) => ndarray("float32", [values.length], Float32Array.from(values));

const trained = inMemory({ both: vector(1, 2), own: vector(3) }, "trained.safetensors");
const frozen = inMemory({ both: vector(4, 5, 6), other: vector(7) }, "frozen.safetensors");

test("the first source wins where two have the same weight", async () => {
  const layered = overlayWeights([trained, frozen]);
  expect([...layered.tensors.keys()].sort()).toEqual(["both", "other", "own"]);
  expect(layered.tensors.get("both")?.shape).toEqual([2]);
  expect([...(await layered.readFloat32("both"))]).toEqual([1, 2]);
  expect([...(await layered.readFloat32("other"))]).toEqual([7]);
  const reversed = overlayWeights([frozen, trained]);
  expect(reversed.tensors.get("both")?.shape).toEqual([3]);
  expect([...(await reversed.readFloat32("both"))]).toEqual([4, 5, 6]);
});

test("a missing weight is an error that names it and all sources", () => {
  const layered = overlayWeights([trained, frozen]);
  expect(() => layered.readFloat32("missing")).toThrow(
    'trained.safetensors and frozen.safetensors has no tensor "missing"',
  );
});

test("a matrix keeps the kind and the file range of its own source", () => {
  const used = new UsedWeights(overlayWeights([trained, { ...frozen, matrix: () => blocks }]));
  const blocks = new TiledInt8Matrix({ name: "other", rows: 2, columns: 3, tile: 2, load: () => Promise.reject() });
  expect(used.matrix("other")).toBe(blocks);
  expect(used.matrix("both").kind).toBe("float32");
  expect(() => used.matrix("missing")).toThrow('no tensor "missing"');
  const range = { path: "frozen.safetensors", offset: 8, length: 4 };
  const inFile = { ...frozen, tensors: new Map([["other", { shape: [1], storedType: "F32", range }]]) };
  expect(new UsedWeights(overlayWeights([trained, inFile])).tensors.get("other")?.range).toEqual(range);
});

test("overlays can be nested", async () => {
  const layered = overlayWeights([overlayWeights([trained]), overlayWeights([frozen, trained])]);
  expect([...(await layered.readFloat32("both"))]).toEqual([1, 2]);
  expect(overlayWeights([]).tensors.size).toBe(0);
});
