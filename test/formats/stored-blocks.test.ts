/** Matrices in blocks: what is written comes back, and what does not fit is told. */
import { join } from "node:path";
import fc from "fast-check";
import { expect, test } from "vitest";
import { convertTensor } from "../../src/convert/convert-tensor.ts";
import { openCheckpoint } from "../../src/formats/open.ts";
import { packedWeights, packTensor } from "../../src/formats/packed.ts";
import { writeSafetensors } from "../../src/formats/safetensors.ts";
import { streamSafetensors } from "../../src/formats/safetensors-writer.ts";
import { type NdArray, ndarray } from "../../src/tensor/array.ts";
import { BlockMatrix, type BlockSize } from "../../src/tensor/quant/blocks.ts";
import type { Matrix } from "../../src/tensor/quant/matrix.ts";
import { Random } from "../../src/tensor/random.ts";
import { temporaryFolder } from "../helpers/tiny-model.ts";

const folder = temporaryFolder();
let count = 0;
const fresh = () => join(folder, `${count++}.safetensors`);

/** A matrix written in blocks; the values before, and the checkpoint. */
async function written(
  rows: number,
  columns: number,
  quantization: "int4" | "int8",
  { deviation = 1, blockSize = 32 }: { readonly deviation?: number; readonly blockSize?: BlockSize } = {},
) {
  const random = new Random(rows * 1000 + columns);
  const values = Float32Array.from({ length: rows * columns }, () => deviation * random.normal());
  const [plain, path] = [fresh(), fresh()];
  await writeSafetensors(plain, { w: ndarray("float32", [rows, columns], values) });
  const source = await openCheckpoint(plain);
  const info = source.tensors.get("w");
  if (!info) throw new Error("The tensor should be there");
  await streamSafetensors(path, [convertTensor(source, info, { bits: quantization === "int4" ? 4 : 8, blockSize })]);
  await source.close();
  return { values, checkpoint: await openCheckpoint(path) };
}

test("the error of each element is at most half a level of its block, for any shape", async () => {
  const shapes = fc.tuple(fc.integer({ min: 1, max: 9 }), fc.integer({ min: 1, max: 5 }));
  const quantizations = fc.constantFrom("int4" as const, "int8" as const);
  await fc.assert(
    fc.asyncProperty(
      shapes,
      quantizations,
      fc.constantFrom(1e-6, 0.02, 100),
      fc.constantFrom(32 as const, 64 as const, 128 as const),
      async ([rows, blocks], quantization, deviation, blockSize) => {
        const columns = blockSize * blocks;
        const { values, checkpoint } = await written(rows, columns, quantization, { deviation, blockSize });
        expect([...checkpoint.tensors.keys()]).toEqual(["w"]);
        expect(checkpoint.tensors.get("w")).toMatchObject({
          shape: [rows, columns],
          storedType: quantization.toUpperCase(),
        });
        const found = await checkpoint.readFloat32("w");
        await checkpoint.close();
        expect(checkpoint.matrix("w")).toMatchObject({ kind: "blocks", format: { blockSize } });
        for (let start = 0; start < values.length; start += blockSize) {
          const own = values.subarray(start, start + blockSize);
          const step =
            quantization === "int8"
              ? Math.max(...own.map(Math.abs)) / 127
              : (Math.max(0, ...own) - Math.min(0, ...own)) / 15;
          // The zero point is rounded, too, so that at the ends of the range it may be a whole step.
          const most = quantization === "int8" ? 0.501 : 1.001;
          for (const [i, value] of own.entries()) {
            expect(Math.abs(value - (found[start + i] as number))).toBeLessThan(most * step);
          }
        }
      },
    ),
    { numRuns: 25 },
  );
});

test.each([
  ["int4", 32, "Q4_1"],
  ["int8", 32, "Q8_0"],
  ["int4", 128, "Q4_1"],
] as const)(
  "a page gets the same levels, only scales are rounded to 16 bits: %s of %s as %s",
  async (quantization, blockSize, type) => {
    const columns = 3 * blockSize;
    const { checkpoint } = await written(5, columns, quantization, { blockSize });
    const { packing, bytes } = await packTensor(checkpoint, "w", "none");
    expect(packing).toBe(type);
    const packed = packedWeights("page", [{ name: "w", shape: [5, columns], packing, offset: 0 }], bytes);
    const [exact, found] = [await checkpoint.readFloat32("w"), await packed.readFloat32("w")];
    const [own, back] = [await quants(checkpoint.matrix("w")), await quants(packed.matrix("w"))];
    await checkpoint.close();
    expect(back).toEqual(own);
    // Steps are about 0.3 and 0.02.
    for (const [i, value] of found.entries()) expect(Math.abs(value - (exact[i] as number))).toBeLessThan(0.005);
  },
);

test.each<[string, Record<string, NdArray>, string]>([
  ["missing scales", { "w.int8": bytes(2, 1, 32) }, 'its part "w.scales" is missing, expected F32 [2, 1]'],
  [
    "scales of another shape",
    { "w.int8": bytes(2, 1, 32), "w.scales": ndarray("float32", [1, 2], new Float32Array(2)) },
    'its part "w.scales" is F32 [1, 2], expected F32 [2, 1]',
  ],
  [
    "blocks of another size",
    {
      "w.int4": bytes(2, 1, 8),
      "w.scales": ndarray("float32", [2, 1], new Float32Array(2)),
      "w.zero_points": bytes(2, 1),
    },
    'its part "w.int4" is U8 [2, 1, 8], expected U8 [2, 1, 16]',
  ],
  [
    "no zero points",
    { "w.int4": bytes(2, 1, 16), "w.scales": ndarray("float32", [2, 1], new Float32Array(2)) },
    'its part "w.zero_points" is missing',
  ],
])("%s", async (_, arrays, message) => {
  const path = fresh();
  await writeSafetensors(path, arrays);
  await expect(openCheckpoint(path)).rejects.toThrow(message);
  await expect(openCheckpoint(path)).rejects.toThrow(path);
});

async function quants(matrix: Matrix): Promise<Uint8Array> {
  if (!(matrix instanceof BlockMatrix)) throw new Error(`expected blocks, found ${matrix.kind}`);
  return new Uint8Array((await matrix.load()).quants);
}

function bytes(...shape: number[]): NdArray<"uint8"> {
  return ndarray("uint8", shape, new Uint8Array(shape.reduce((product, dim) => product * dim, 1)));
}
