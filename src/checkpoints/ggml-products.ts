/** Quantised tensors of GGUF files in the blocks that products take (`tensor/blocks.ts`), value for value. */
import type { BlockFormat, Blocks } from "../tensor/blocks.ts";
import { type BlockLayout, blockLayouts, takeApart } from "./ggml-blocks.ts";

interface Unpacker {
  readonly format: BlockFormat;
  unpack(bytes: Uint8Array): Blocks;
}

/** By the name of the stored type. Groups become blocks; levels of more than 4 bits take 8. */
export const productBlocks: ReadonlyMap<string, Unpacker> = new Map(
  Object.entries(blockLayouts).map(([name, layout]) => [name, unpacker(layout)]),
);

function unpacker(layout: BlockLayout): Unpacker {
  const bits = layout.bits > 4 ? 8 : 4;
  const minima = layout.minimum !== undefined;
  // Without minima products have the zero in the middle of their range.
  const raise = minima ? 0 : 2 ** (bits - 1) - layout.zero;
  return {
    format: { bits, minima, blockSize: layout.group },
    unpack(bytes) {
      const { levels, ...rest } = takeApart(layout, bytes);
      const words = new Uint32Array(levels.buffer);
      if (raise > 0) for (let i = 0; i < words.length; i++) words[i] = (words[i] as number) + raise * 0x01010101;
      return { quants: bits === 4 ? pairNeighbours(levels) : levels, ...rest };
    },
  };
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
