import fc from "fast-check";
import { expect, test } from "vitest";
import {
  type BlockLayout,
  type BlockType,
  blockLayouts,
  blockMatrix,
  blocksToFloat32,
} from "../../../src/formats/gguf/blocks.ts";

const layouts: readonly (readonly [string, BlockLayout])[] = Object.entries(blockLayouts);

/** Blocks of any bytes, with scales and minima in [-2, 2]: float16 numbers below 0x4000, of either sign. */
function randomBlocks(layout: BlockLayout, mostBlocks: number) {
  const anyBytes = (length: number) => fc.uint8Array({ minLength: length, maxLength: length });
  return fc
    .integer({ min: 1, max: mostBlocks })
    .chain((count) => anyBytes(count * layout.bytes))
    .map((bytes) => {
      for (let start = 0; start < bytes.length; start += layout.bytes) {
        for (const at of [layout.scale, layout.minimum ?? layout.scale]) {
          bytes[start + at + 1] = (bytes[start + at + 1] as number) & 0xbf;
        }
      }
      return bytes;
    });
}

test.each(layouts)(
  "%s: any bytes are finite numbers where scales are, and products get the same ones",
  async (name, layout) => {
    await fc.assert(
      fc.asyncProperty(randomBlocks(layout, 4), async (bytes) => {
        const values = blocksToFloat32(layout, bytes);
        expect(values.length).toBe((bytes.length / layout.bytes) * layout.elements);
        expect(values.every(Number.isFinite)).toBe(true);
        const shape = [1, values.length];
        const matrix = blockMatrix({ name, shape, type: name as BlockType, read: async () => bytes });
        const { format } = matrix;
        const { quants, scales, minima } = await matrix.load();
        expect(quants.length).toBe((values.length * format.bits) / 8);
        expect(minima !== undefined).toBe(format.minima);
        const expected = values.map((_, i) => {
          const q = format.bits === 8 ? (quants[i] as number) : ((quants[i >> 1] as number) >> (4 * (i & 1))) & 15;
          const block = Math.floor(i / format.blockSize);
          const level = minima ? q : q - 2 ** (format.bits - 1);
          return level * (scales[block] as number) + (minima ? (minima[block] as number) : -0);
        });
        expect(expected).toEqual(values);
      }),
    );
  },
);

test("a long row equals its blocks one by one", () => {
  for (const [, layout] of layouts) {
    const count = Math.ceil(70_000 / layout.elements);
    const bytes = Uint8Array.from({ length: count * layout.bytes }, (_, i) => (i * 167 + (i >> 8)) & 0x3f);
    const whole = blocksToFloat32(layout, bytes);
    for (const block of [0, 1, Math.floor(2 ** 16 / layout.elements), count - 1]) {
      const own = bytes.subarray(block * layout.bytes, (block + 1) * layout.bytes);
      expect(whole.subarray(block * layout.elements, (block + 1) * layout.elements)).toEqual(
        blocksToFloat32(layout, own),
      );
    }
  }
});
