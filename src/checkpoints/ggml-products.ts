/** Quantised tensors of GGUF files in the blocks that products take (`tensor/blocks.ts`), value for value. */
import type { BlockFormat, BlockSource, Blocks } from "../tensor/blocks.ts";
import { type BlockLayout, type BlockType, blockLayouts, isBlockType, takeApart } from "./ggml-blocks.ts";
import { ggmlTypes } from "./ggml-types.ts";

/** Blocks for products of what is stored in a type. @param read the stored bytes */
export function blockSource(type: BlockType, read: () => Promise<Uint8Array>): BlockSource {
  const layout = blockLayouts[type];
  const format = formatOf(layout);
  return { format, load: async () => toBlocks(layout, format, await read()), packed: { type, read } };
}

/** Groups become blocks; levels of more than 4 bits take 8. */
function formatOf({ bits, minimum, group }: BlockLayout): BlockFormat {
  return { bits: bits > 4 ? 8 : 4, minima: minimum !== undefined, blockSize: group };
}

function toBlocks(layout: BlockLayout, { bits, minima }: BlockFormat, bytes: Uint8Array): Blocks {
  const { levels, ...rest } = takeApart(layout, bytes);
  // Without minima products have the zero in the middle of their range.
  const raise = minima ? 0 : 2 ** (bits - 1) - layout.zero;
  const words = new Uint32Array(levels.buffer);
  if (raise > 0) for (let i = 0; i < words.length; i++) words[i] = (words[i] as number) + raise * 0x01010101;
  return { quants: bits === 4 ? pairNeighbours(levels) : levels, ...rest };
}

/** How products use a matrix that is stored in a type, in words. */
export function useOfType(type: string): string {
  const known = [...ggmlTypes.values()].find(({ name }) => name === type);
  if (!known?.toFloat32) return "cannot be read yet";
  if (!isBlockType(type)) return "rounded to 4-bit blocks of 32";
  const { bits, blockSize } = formatOf(blockLayouts[type]);
  return `used as they are, in ${bits}-bit blocks of ${blockSize}`;
}

/** Two a byte, the first in the low half; four at a time. */
function pairNeighbours(levels: Uint8Array): Uint8Array {
  const words = new Uint32Array(levels.buffer);
  const out = new Uint16Array(words.length);
  for (let i = 0; i < out.length; i++) {
    const word = words[i] as number;
    const pairs = word | (word >>> 4);
    out[i] = (pairs & 0xff) | ((pairs >>> 8) & 0xff00);
  }
  return new Uint8Array(out.buffer);
}
