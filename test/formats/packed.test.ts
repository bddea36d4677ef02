import fc from "fast-check";
import { expect, test } from "vitest";
import { type BlockType, blockLayouts, blockMatrix, blocksToFloat32 } from "../../src/formats/gguf/blocks.ts";
import { packedBytes, packedWeights, packTensor, type Rounding } from "../../src/formats/packed.ts";
import { float16ToFloat32, float32ToFloat16 } from "../../src/tensor/float16.ts";
import { BlockMatrix, type Blocks } from "../../src/tensor/quant/blocks.ts";
import type { Matrix } from "../../src/tensor/quant/matrix.ts";
import { type WeightSource, weightsInMemory } from "../../src/tensor/weight-source.ts";

const inHalf = (values: Float32Array) => float16ToFloat32(float32ToFloat16(values));
const source = (shape: readonly number[], data: Float32Array): WeightSource =>
  weightsInMemory("here", { w: { shape, data } });

async function throughPacking(from: WeightSource, rounding: Rounding) {
  const shape = from.tensors.get("w")?.shape ?? [];
  const { packing, bytes } = await packTensor(from, "w", rounding);
  expect(bytes.length).toBe(packedBytes({ shape, packing }));
  // What lies before it does not matter.
  const all = new Uint8Array(16 + bytes.length);
  all.set(bytes, 16);
  return { packing, packed: packedWeights("there", [{ name: "w", shape, packing, offset: 16 }], all) };
}

const floats = fc.float32Array({ minLength: 1, maxLength: 40, noNaN: true });

test("values are exact without rounding, in float16 where that is exact", async () => {
  await fc.assert(
    fc.asyncProperty(floats, fc.boolean(), async (values, halves) => {
      const data = halves ? inHalf(values) : values;
      const { packing, packed } = await throughPacking(source([1, data.length], data), "none");
      expect(await packed.readFloat32("w")).toEqual(data);
      if (halves) expect(packing).toBe("float16");
    }),
  );
});

test("only matrices are rounded to float16, and only if their values are in its range", async () => {
  const [wide, large] = [Float32Array.of(0.1, 2), Float32Array.of(0.1, 1e6)];
  const matrix = await throughPacking(source([2, 1], wide), "float16");
  expect(await matrix.packed.readFloat32("w")).toEqual(inHalf(wide));
  const vector = await throughPacking(source([2], wide), "float16");
  expect(await vector.packed.readFloat32("w")).toEqual(wide);
  expect((await throughPacking(source([2, 1], large), "float16")).packing).toBe("float32");
});

test("rounding to blocks has an error of at most half a level, and matrix and values agree", async () => {
  const values = fc.float({ min: -3, max: 3, noNaN: true });
  await fc.assert(
    fc.asyncProperty(fc.array(values, { minLength: 64, maxLength: 64 }), async (list) => {
      const data = Float32Array.from(list);
      const { packing, packed } = await throughPacking(source([2, 32], data), "blocks");
      expect(packing).toBe("Q4_1");
      const found = await packed.readFloat32("w");
      data.forEach((value, i) => {
        const row = data.subarray(i < 32 ? 0 : 32, i < 32 ? 32 : 64);
        const step = (Math.max(...row) - Math.min(...row)) / 15;
        // A little more, as scale and minimum have 16 bits themselves.
        expect(Math.abs((found[i] as number) - value)).toBeLessThanOrEqual(step / 2 + 0.011);
      });
      const blocks = await inBlocks(packed.matrix("w")).load();
      expect(elements(blocks)).toEqual(found);
    }),
  );
});

test.each(Object.keys(blockLayouts) as BlockType[])("blocks of a file are kept: %s", async (type) => {
  const { bytes, elements } = blockLayouts[type];
  const shape = [2, elements];
  // Any bytes whose float16 numbers are finite.
  const data = Uint8Array.from({ length: 2 * bytes }, (_, i) => (i * 37) % 60);
  const stored = blockMatrix({ name: "w", shape, type, read: async () => data });
  const file = { ...source(shape, new Float32Array()), matrix: () => stored };
  const { packing, packed } = await throughPacking(file, "none");
  expect(packing).toBe(type);
  const matrix = inBlocks(packed.matrix("w"));
  expect(matrix.format).toEqual(stored.format);
  expect(await matrix.load()).toEqual(await stored.load());
  expect(await packed.readFloat32("w")).toEqual(blocksToFloat32(blockLayouts[type], data));
});

test("an index that does not match the bytes is refused", () => {
  const index = [{ name: "w", shape: [4, 32], packing: "Q4_0", offset: 0 } as const];
  expect(() => packedWeights("there", index, new Uint8Array(71))).toThrow('there: tensor "w" ends after the 71 bytes');
  expect(packedWeights("there", index, new Uint8Array(72)).tensors.size).toBe(1);
});

function inBlocks(matrix: Matrix): BlockMatrix {
  if (matrix instanceof BlockMatrix) return matrix;
  throw new Error(`expected blocks, found ${matrix.kind}`);
}

function elements({ quants, scales, minima = new Float32Array(scales.length) }: Blocks): Float32Array {
  return Float32Array.from({ length: scales.length * 32 }, (_, i) => {
    const q = ((quants[i >> 1] as number) >> (4 * (i & 1))) & 15;
    return q * (scales[i >> 5] as number) + (minima[i >> 5] as number);
  });
}
