/** Quantised tensors of GGUF files in the blocks that products take (`tensor/blocks.ts`), value for value. */
import type { BlockFormat, Blocks } from "../tensor/blocks.ts";
import { float16Column } from "./ggml-blocks.ts";

interface Unpacker {
  readonly format: BlockFormat;
  unpack(bytes: Uint8Array): Blocks;
}

/** By the name of the stored type. */
export const productBlocks: ReadonlyMap<string, Unpacker> = new Map([
  [
    "Q4_0",
    {
      format: { bits: 4, minima: false },
      unpack: (bytes: Uint8Array) => ({ quants: pairNeighbours(bytes, 18, 2), scales: float16Column(bytes, 18, 0) }),
    },
  ],
  [
    "Q4_1",
    {
      format: { bits: 4, minima: true },
      unpack: (bytes: Uint8Array) => ({
        quants: pairNeighbours(bytes, 20, 4),
        scales: float16Column(bytes, 20, 0),
        minima: float16Column(bytes, 20, 2),
      }),
    },
  ],
  [
    "Q8_0",
    {
      format: { bits: 8, minima: false },
      unpack: (bytes: Uint8Array) => ({ quants: unsigned(bytes, 34, 2), scales: float16Column(bytes, 34, 0) }),
    },
  ],
]);

/** ggml pairs element i with element i + 16 in a byte; products want neighbours, the first in the low half. */
function pairNeighbours(bytes: Uint8Array, blockBytes: number, offset: number): Uint8Array {
  const out = new Uint8Array((bytes.length / blockBytes) * 16);
  for (let from = offset, to = 0; to < out.length; from += blockBytes, to += 16) {
    for (let i = 0; i < 8; i++) {
      const first = bytes[from + 2 * i] as number;
      const second = bytes[from + 2 * i + 1] as number;
      out[to + i] = (first & 15) | ((second & 15) << 4);
      out[to + i + 8] = (first >> 4) | (second & 240);
    }
  }
  return out;
}

/** Signed bytes, 128 more. */
function unsigned(bytes: Uint8Array, blockBytes: number, offset: number): Uint8Array {
  const out = new Uint8Array((bytes.length / blockBytes) * 32);
  for (let from = offset, to = 0; to < out.length; from += blockBytes, to += 32) {
    for (let i = 0; i < 32; i++) out[to + i] = (bytes[from + i] as number) ^ 128;
  }
  return out;
}
