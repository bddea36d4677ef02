/**
 * Quantized rows in ggml's formats (`ggml-common.h`). Consecutive elements form a group with a scale and possibly a minimum;
 * an element is (level - zero) * scale + minimum, where its level is an integer of a few bits.
 *
 * The bits of levels are stored in planes: in each run of bytes, the lowest bits are those of the first elements, one per
 * byte, the next bits those of the following elements, and so on.
 */

import type { DType } from "../../tensor/array.ts";
import { float16ToFloat32, float32ToFloat16, widen } from "../../tensor/float16.ts";
import { type BlockFormat, BlockMatrix, type Blocks } from "../../tensor/quant/blocks.ts";

interface Plane {
  /** Offset in the block. */
  readonly at: number;
  /** Bytes of a run. */
  readonly run: number;
  /** Bits of an element. */
  readonly bits: 1 | 2 | 4 | 8;
  /** Position of these bits in a level. @default 0 */
  readonly shift?: number;
}

export interface BlockLayout {
  /** Elements of a block, and its bytes. */
  readonly elements: 32 | 256;
  readonly bytes: number;
  /** Elements of a group. */
  readonly group: 16 | 32;
  readonly planes: readonly Plane[];
  /** Bits of a level. */
  readonly bits: number;
  /** The level of 0, in formats without minima. */
  readonly zero: number;
  /** Offset of the block's scale and of its minimum, both float16. */
  readonly scale: number;
  readonly minimum?: number;
  /**
   * Reads the integer factors of each group: those of the scale, then those of the minimum, which is subtracted. Without
   * factors a block is one group.
   */
  readonly factors?: (bytes: Uint8Array, start: number, into: Int8Array) => void;
}

const pairs = { run: 16, bits: 4 } as const;
const fifthBit = { run: 1, bits: 1, shift: 4 } as const;

/** Block formats by type. */
export const blockLayouts = {
  Q4_0: { ...simple(18, 4, 8), planes: [{ at: 2, ...pairs }] },
  Q4_1: { ...simple(20, 4, 0), minimum: 2, planes: [{ at: 4, ...pairs }] },
  Q5_0: {
    ...simple(22, 5, 16),
    planes: [
      { at: 2, ...fifthBit },
      { at: 6, ...pairs },
    ],
  },
  Q5_1: {
    ...simple(24, 5, 0),
    minimum: 2,
    planes: [
      { at: 4, ...fifthBit },
      { at: 8, ...pairs },
    ],
  },
  // Signed bytes; `addPlane` makes them unsigned.
  Q8_0: { ...simple(34, 8, 128), planes: [{ at: 2, run: 32, bits: 8 }] },
  Q2_K: {
    ...super256(84, 16, 2, 0),
    ...{ scale: 80, minimum: 82 },
    planes: [{ at: 16, run: 32, bits: 2 }],
    factors: (bytes, start, into) => {
      for (let i = 0; i < 32; i++) into[i] = nibble(bytes, start + (i & 15), i >> 4);
    },
  },
  Q3_K: {
    ...super256(110, 16, 3, 4),
    scale: 108,
    planes: [
      { at: 32, run: 32, bits: 2 },
      { at: 0, run: 32, bits: 1, shift: 2 },
    ],
    // Four bits of each, then the upper two.
    factors: (bytes, start, into) => {
      for (let i = 0; i < 16; i++) {
        const upper = ((bytes[start + 104 + (i & 3)] as number) >> (2 * (i >> 2))) & 3;
        into[i] = (nibble(bytes, start + 96 + (i & 7), i >> 3) | (upper << 4)) - 32;
      }
    },
  },
  Q4_K: {
    ...super256(144, 32, 4, 0),
    ...{ scale: 0, minimum: 2 },
    planes: [{ at: 16, run: 32, bits: 4 }],
    factors: sixBits,
  },
  Q5_K: {
    ...super256(176, 32, 5, 0),
    ...{ scale: 0, minimum: 2 },
    planes: [
      { at: 48, run: 32, bits: 4 },
      { at: 16, run: 32, bits: 1, shift: 4 },
    ],
    factors: sixBits,
  },
  Q6_K: {
    ...super256(210, 16, 6, 32),
    scale: 208,
    planes: [
      { at: 0, run: 64, bits: 4 },
      { at: 128, run: 32, bits: 2, shift: 4 },
    ],
    factors: (bytes, start, into) => into.set(bytes.subarray(start + 192, start + 208)),
  },
} satisfies Record<string, BlockLayout>;

/** A quantized type whose values can be read. */
export type BlockType = keyof typeof blockLayouts;

export function isBlockType(name: string): name is BlockType {
  return Object.hasOwn(blockLayouts, name);
}

function simple(bytes: number, bits: number, zero: number) {
  return { elements: 32, group: 32, scale: 0, bytes, bits, zero } as const;
}

function super256<G extends 16 | 32>(bytes: number, group: G, bits: number, zero: number) {
  return { elements: 256, bytes, group, bits, zero } as const;
}

function nibble(bytes: Uint8Array, at: number, upper: number): number {
  return ((bytes[at] as number) >> (4 * upper)) & 15;
}

/** Q4_K's and Q5_K's 8 scales and 8 minima of 6 bits; the upper two bits of the later ones are with the earlier ones. */
function sixBits(bytes: Uint8Array, start: number, into: Int8Array): void {
  for (let i = 0; i < 16; i++) {
    const [half, place] = [i >> 3, i & 7];
    const early = bytes[start + 4 + 4 * half + (place & 3)] as number;
    into[i] = place < 4 ? early & 63 : nibble(bytes, start + 8 + place, half) | ((early >> 6) << 4);
  }
}

/** Unpacked blocks. */
export interface Levels {
  /** One level per byte. */
  readonly levels: Uint8Array;
  /** One scale per group; minima likewise. */
  readonly scales: Float32Array;
  readonly minima?: Float32Array;
}

/** Unpacks whole blocks, without rounding. */
function unpackBlocks(layout: BlockLayout, bytes: Uint8Array): Levels {
  const blocks = bytes.length / layout.bytes;
  const groups = layout.elements / layout.group;
  const levels = new Uint8Array(blocks * layout.elements);
  for (const plane of layout.planes) (plane.run === 1 ? addBits : addPlane)(layout, plane, bytes, levels);
  const scales = new Float32Array(blocks * groups);
  const minima = layout.minimum === undefined ? undefined : new Float32Array(blocks * groups);
  const blockScales = float16Column(bytes, layout.bytes, layout.scale);
  const blockMinima = float16Column(bytes, layout.bytes, layout.minimum ?? layout.scale);
  const factors = new Int8Array(2 * groups).fill(1, 0, groups).fill(-1, groups);
  for (let block = 0; block < blocks; block++) {
    layout.factors?.(bytes, block * layout.bytes, factors);
    for (let group = 0, at = block * groups; group < groups; group++, at++) {
      scales[at] = (blockScales[block] as number) * (factors[group] as number);
      if (minima) minima[at] = -(blockMinima[block] as number) * (factors[groups + group] as number);
    }
  }
  return { levels, scales, minima };
}

/** Packs levels into blocks, the inverse of `unpackBlocks`; scales and minima are rounded to float16. */
export function packBlocks(type: "Q4_1" | "Q8_0", { levels, scales, minima }: Levels): Uint8Array {
  const layout: BlockLayout = blockLayouts[type];
  const { elements, bytes: blockBytes, scale, minimum, planes } = layout;
  const bytes = new Uint8Array(scales.length * blockBytes);
  const halves = new Uint16Array(bytes.buffer);
  const column = (values: Float32Array, offset: number) =>
    float32ToFloat16(values).forEach((half, block) => {
      halves[(block * blockBytes + offset) / 2] = half;
    });
  column(scales, scale);
  if (minima && minimum !== undefined) column(minima, minimum);
  for (const { at, run, bits } of planes) {
    // Whole bytes are signed.
    const flip = bits === 8 ? 128 : 0;
    for (let i = 0; i < levels.length; i++) {
      const own = i % elements;
      const place = ((i - own) / elements) * blockBytes + at + (own % run);
      bytes[place] = (bytes[place] as number) | (((levels[i] as number) ^ flip) << (bits * Math.floor(own / run)));
    }
  }
  return bytes;
}

/** Four elements at a time. */
function addPlane(layout: BlockLayout, { at, run, bits, shift = 0 }: Plane, bytes: Uint8Array, levels: Uint8Array) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const words = new Uint32Array(levels.buffer);
  const [blockBytes, blockWords, runWords] = [layout.bytes, layout.elements / 4, run / 4];
  const mask = (2 ** bits - 1) * 0x01010101;
  // Whole bytes are signed.
  const flip = bits === 8 ? 0x80808080 : 0;
  for (let start = at, to = 0; to < words.length; start += blockBytes) {
    const end = to + blockWords;
    for (let from = start; to < end; from += run) {
      for (let low = 0; low < 8; low += bits, to += runWords) {
        for (let i = 0; i < runWords; i++) {
          const four = ((view.getUint32(from + 4 * i, true) >>> low) & mask) ^ flip;
          words[to + i] = (words[to + i] as number) | (four << shift);
        }
      }
    }
  }
}

/** Eight elements of one bit, for runs of one byte. */
function addBits(layout: BlockLayout, { at, shift = 0 }: Plane, bytes: Uint8Array, levels: Uint8Array) {
  const words = new Uint32Array(levels.buffer);
  // The product has bit i at bit 8 i.
  const spread = (four: number) => ((four * 0x00204081) & 0x01010101) << shift;
  for (let start = at, to = 0; to < words.length; start += layout.bytes) {
    const end = to + layout.elements / 4;
    for (let from = start; to < end; from++, to += 2) {
      const byte = bytes[from] as number;
      words[to] = (words[to] as number) | spread(byte & 15);
      words[to + 1] = (words[to + 1] as number) | spread(byte >> 4);
    }
  }
}

/** The float16 numbers at `offset` (even) of each block. */
function float16Column(bytes: Uint8Array, blockBytes: number, offset: number): Float32Array {
  const words = new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.byteLength >> 1);
  const column = new Uint16Array(bytes.byteLength / blockBytes);
  for (let block = 0; block < column.length; block++)
    column[block] = words[(block * blockBytes + offset) >> 1] as number;
  return float16ToFloat32(column);
}

/** Elements that are unpacked at a time, so that a large matrix is not copied twice. */
const chunkLength = 2 ** 16;

/** The float32 values of whole blocks, bit for bit as in ggml. */
export function blocksToFloat32(layout: BlockLayout, bytes: Uint8Array): Float32Array {
  const out = new Float32Array((bytes.length / layout.bytes) * layout.elements);
  const pieceBytes = (chunkLength / layout.elements) * layout.bytes;
  for (let from = 0, to = 0; to < out.length; from += pieceBytes) {
    const { levels, scales, minima } = unpackBlocks(layout, bytes.subarray(from, from + pieceBytes));
    for (let i = 0, group = 0; i < levels.length; group++) {
      const scale = scales[group] as number;
      // Adding -0 changes nothing, not even the sign of a zero.
      const minimum = minima ? (minima[group] as number) : -0;
      for (const end = i + layout.group; i < end; i++, to++) {
        out[to] = ((levels[i] as number) - layout.zero) * scale + minimum;
      }
    }
  }
  return out;
}

/** An element type of GGUF files (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md). */
export interface GgmlType {
  readonly name: string;
  /** Elements of a block; 1 for plain types. */
  readonly blockElements: number;
  readonly blockBytes: number;
  /** Float32 values of whole blocks; undefined if the type cannot be read. */
  readonly toFloat32?: (bytes: Uint8Array) => Float32Array;
}

function plain(name: string, blockBytes: number, dtype: DType): GgmlType {
  return { name, blockElements: 1, blockBytes, toFloat32: (bytes) => widen(dtype, bytes) };
}

function blocks(name: BlockType): GgmlType {
  const layout = blockLayouts[name];
  const toFloat32 = (bytes: Uint8Array) => blocksToFloat32(layout, bytes);
  return { name, blockElements: layout.elements, blockBytes: layout.bytes, toFloat32 };
}

/** A type that is listed, but cannot be read. */
function listed(name: string, blockElements: number, blockBytes: number): GgmlType {
  return { name, blockElements, blockBytes };
}

/** Element types by their number in the file. */
export const ggmlTypes: ReadonlyMap<number, GgmlType> = new Map([
  [0, plain("F32", 4, "float32")],
  [1, plain("F16", 2, "float16")],
  [2, blocks("Q4_0")],
  [3, blocks("Q4_1")],
  [6, blocks("Q5_0")],
  [7, blocks("Q5_1")],
  [8, blocks("Q8_0")],
  [9, listed("Q8_1", 32, 36)],
  [10, blocks("Q2_K")],
  [11, blocks("Q3_K")],
  [12, blocks("Q4_K")],
  [13, blocks("Q5_K")],
  [14, blocks("Q6_K")],
  [15, listed("Q8_K", 256, 292)],
  [16, listed("IQ2_XXS", 256, 66)],
  [17, listed("IQ2_XS", 256, 74)],
  [18, listed("IQ3_XXS", 256, 98)],
  [19, listed("IQ1_S", 256, 50)],
  [20, listed("IQ4_NL", 32, 18)],
  [21, listed("IQ3_S", 256, 110)],
  [22, listed("IQ2_S", 256, 82)],
  [23, listed("IQ4_XS", 256, 136)],
  [24, plain("I8", 1, "int8")],
  [25, plain("I16", 2, "int16")],
  [26, plain("I32", 4, "int32")],
  [27, plain("I64", 8, "int64")],
  [28, plain("F64", 8, "float64")],
  [29, listed("IQ1_M", 256, 56)],
  [30, plain("BF16", 2, "bfloat16")],
  [34, listed("TQ1_0", 256, 54)],
  [35, listed("TQ2_0", 256, 66)],
  [39, listed("MXFP4", 32, 17)],
  [40, listed("NVFP4", 64, 36)],
  [41, listed("Q1_0", 128, 18)],
]);

/** A matrix stored in a block type, converted exactly to the blocks of `tensor/quant/blocks.ts`. */
export function blockMatrix({ name, shape: [rows = 0, columns = 0], type, read }: StoredBlocks): BlockMatrix {
  const layout = blockLayouts[type];
  const format = blockFormat(layout);
  const load = async () => toBlocks(layout, format, await read());
  return new BlockMatrix({ name, rows, columns, format, load, gguf: { type, read } });
}

interface StoredBlocks {
  readonly name: string;
  readonly shape: readonly number[];
  readonly type: BlockType;
  /** The stored bytes. */
  read(): Promise<Uint8Array>;
}

/** Groups become blocks; levels of more than 4 bits take 8. */
function blockFormat({ bits, minimum, group }: BlockLayout): BlockFormat {
  return { bits: bits > 4 ? 8 : 4, minima: minimum !== undefined, blockSize: group };
}

function toBlocks(layout: BlockLayout, { bits, minima }: BlockFormat, bytes: Uint8Array): Blocks {
  const { levels, ...rest } = unpackBlocks(layout, bytes);
  // Without minima the zero of `BlockMatrix` is in the middle of the range.
  const raise = minima ? 0 : 2 ** (bits - 1) - layout.zero;
  const words = new Uint32Array(levels.buffer);
  if (raise > 0) for (let i = 0; i < words.length; i++) words[i] = (words[i] as number) + raise * 0x01010101;
  return { quants: bits === 4 ? pairNeighbours(levels) : levels, ...rest };
}

/** Describes how a matrix of a type is used, for people. */
export function describeTypeUse(type: string): string {
  const known = [...ggmlTypes.values()].find(({ name }) => name === type);
  if (!known?.toFloat32) return "cannot be read yet";
  if (!isBlockType(type)) return "rounded to 4-bit blocks of 32";
  const { bits, blockSize } = blockFormat(blockLayouts[type]);
  return `used without rounding, in ${bits}-bit blocks of ${blockSize}`;
}

/** Packs two levels into a byte, the first in the low half; four at a time. */
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
