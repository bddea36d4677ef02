/** A LLaMA with random quantised weights as a GGUF file: speed does not depend on what weights say. */
import { type FileHandle, open } from "node:fs/promises";
import {
  type BlockLayout,
  type BlockType,
  blockLayouts,
  blocksToFloat32,
  ggmlTypes,
} from "../src/formats/gguf/blocks.ts";
import type { LlamaConfig } from "../src/models/llama.ts";
import { float32ToFloat16 } from "../src/tensor/float16.ts";
import { Random } from "../src/tensor/random.ts";

/** TinyLlama-1.1B (Zhang et al., arXiv 2401.02385). */
export const tinyLlama: LlamaConfig = {
  vocabSize: 32000,
  hiddenSize: 2048,
  intermediateSize: 5632,
  numHiddenLayers: 22,
  numAttentionHeads: 32,
  numKeyValueHeads: 4,
  headDim: 64,
  rmsNormEps: 1e-5,
  ropeTheta: 10000,
  maxPositionEmbeddings: 2048,
  tieWordEmbeddings: false,
};

/** LLaMA 7B (Touvron et al., arXiv 2302.13971), which Vicuna is. */
export const vicuna7b: LlamaConfig = {
  ...tinyLlama,
  hiddenSize: 4096,
  intermediateSize: 11008,
  numHiddenLayers: 32,
  numKeyValueHeads: 32,
  headDim: 128,
  rmsNormEps: 1e-6,
};

const alignment = 32;

interface Tensor {
  readonly name: string;
  /** Outermost axis first. */
  readonly shape: readonly number[];
  /** Undefined for float32. */
  readonly layout: BlockLayout | undefined;
  /** The type's number. */
  readonly type: number;
  readonly bytes: number;
}

/**
 * Writes the file: norms of ones in float32, matrices in blocks (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md).
 * @param typeOf of a matrix, by its name; Q4_0 by default
 */
export async function writeRandomLlama(
  path: string,
  config: LlamaConfig,
  typeOf: (name: string) => BlockType = () => "Q4_0",
): Promise<void> {
  const tensors = shapesOf(config).map(({ name, shape }) => describe(name, shape, typeOf));
  const random = new Random(0);
  const file = await open(path, "w");
  try {
    await file.write(header(config, tensors));
    for (const tensor of tensors) await writeTensor(file, tensor, random);
  } finally {
    await file.close();
  }
}

function describe(name: string, shape: readonly number[], typeOf: (name: string) => BlockType): Tensor {
  const elements = shape.reduce((product, dim) => product * dim, 1);
  if (shape.length < 2) return { name, shape, layout: undefined, type: 0, bytes: 4 * elements };
  const type = typeOf(name);
  const layout: BlockLayout = blockLayouts[type];
  const number = [...ggmlTypes].find(([, known]) => known.name === type)?.[0] ?? Number.NaN;
  return { name, shape, layout, type: number, bytes: (elements / layout.elements) * layout.bytes };
}

function shapesOf(config: LlamaConfig): Pick<Tensor, "name" | "shape">[] {
  const { hiddenSize: hidden, intermediateSize: mlp, vocabSize, headDim } = config;
  const [queries, keys] = [config.numAttentionHeads * headDim, config.numKeyValueHeads * headDim];
  const layer = (i: number) =>
    Object.entries({
      attn_norm: [hidden],
      attn_q: [queries, hidden],
      attn_k: [keys, hidden],
      attn_v: [keys, hidden],
      attn_output: [hidden, queries],
      ffn_norm: [hidden],
      ffn_gate: [mlp, hidden],
      ffn_up: [mlp, hidden],
      ffn_down: [hidden, mlp],
    }).map(([name, shape]) => ({ name: `blk.${i}.${name}.weight`, shape }));
  return [
    { name: "token_embd.weight", shape: [vocabSize, hidden] },
    ...Array.from({ length: config.numHiddenLayers }, (_, i) => layer(i)).flat(),
    { name: "output_norm.weight", shape: [hidden] },
    { name: "output.weight", shape: [vocabSize, hidden] },
  ];
}

const padded = (length: number) => Math.ceil(length / alignment) * alignment;

async function writeTensor(file: FileHandle, { shape, layout, bytes }: Tensor, random: Random): Promise<void> {
  const data = Buffer.alloc(padded(bytes));
  if (layout) {
    const words = new Uint32Array(data.buffer, data.byteOffset, data.length / 4);
    for (let i = 0; i < words.length; i++) words[i] = random.uint32();
    // This size of weights keeps activations near theirs.
    setScales(layout, data.subarray(0, bytes), 1 / Math.sqrt(shape[1] as number));
  } else {
    for (let at = 0; at < bytes; at += 4) data.writeFloatLE(1, at);
  }
  await file.write(data);
}

/** Gives random blocks the scales, and minima, with which their elements have a mean of about 0 and a deviation of `size`. */
function setScales(layout: BlockLayout, blocks: Buffer, size: number): void {
  const write = (to: Buffer, scale: number, minimum: number) => {
    const [scaleBits = 0, minimumBits = 0] = float32ToFloat16(Float32Array.of(scale, minimum));
    for (let at = 0; at < to.length; at += layout.bytes) {
      to.writeUInt16LE(scaleBits, at + layout.scale);
      if (layout.minimum !== undefined) to.writeUInt16LE(minimumBits, at + layout.minimum);
    }
  };
  const sample = Buffer.from(blocks.subarray(0, 64 * layout.bytes));
  const values = (scale: number, minimum: number) => {
    write(sample, scale, minimum);
    return blocksToFloat32(layout, sample);
  };
  const mean = (list: Float32Array) => list.reduce((sum, value) => sum + value, 0) / list.length;
  const minimum = layout.minimum === undefined ? 0 : -mean(values(1, 0)) / mean(values(0, 1));
  const deviation = Math.sqrt(mean(values(1, minimum).map((value) => value * value)));
  write(blocks, size / deviation, (minimum * size) / deviation);
}

function header(config: LlamaConfig, tensors: readonly Tensor[]): Buffer {
  const pieces = vocabulary(config.vocabSize);
  const metadata = [
    entry("general.architecture", string("llama")),
    entry("llama.context_length", uint32(config.maxPositionEmbeddings)),
    entry("llama.embedding_length", uint32(config.hiddenSize)),
    entry("llama.block_count", uint32(config.numHiddenLayers)),
    entry("llama.feed_forward_length", uint32(config.intermediateSize)),
    entry("llama.attention.head_count", uint32(config.numAttentionHeads)),
    entry("llama.attention.head_count_kv", uint32(config.numKeyValueHeads)),
    entry("llama.attention.layer_norm_rms_epsilon", float32(config.rmsNormEps)),
    entry("llama.rope.dimension_count", uint32(config.headDim)),
    entry("llama.rope.freq_base", float32(config.ropeTheta)),
    entry("llama.vocab_size", uint32(config.vocabSize)),
    entry("tokenizer.ggml.model", string("llama")),
    entry("tokenizer.ggml.tokens", array(pieces.map(({ text }) => string(text)))),
    entry("tokenizer.ggml.scores", array(pieces.map((_, i) => float32(-i)))),
    entry("tokenizer.ggml.token_type", array(pieces.map(({ type }) => int32(type)))),
    entry("tokenizer.ggml.unknown_token_id", uint32(0)),
    entry("tokenizer.ggml.bos_token_id", uint32(1)),
    entry("tokenizer.ggml.eos_token_id", uint32(2)),
  ];
  let offset = 0;
  const infos = tensors.map((tensor) => {
    const info = Buffer.concat([
      string(tensor.name).bytes,
      uint32(tensor.shape.length).bytes,
      // The file lists the innermost axis first.
      ...tensor.shape.toReversed().map(uint64),
      uint32(tensor.type).bytes,
      uint64(offset),
    ]);
    offset += padded(tensor.bytes);
    return info;
  });
  const start = [Buffer.from("GGUF"), uint32(3).bytes, uint64(tensors.length), uint64(metadata.length)];
  const all = Buffer.concat([...start, ...metadata, ...infos]);
  return Buffer.concat([all], padded(all.length));
}

/** The smallest SentencePiece vocabulary that llama.cpp accepts: special tokens, all bytes, and words that nobody writes. */
function vocabulary(size: number): { text: string; type: number }[] {
  const [normal, unknown, control, byte] = [1, 2, 3, 6];
  const special = [
    { text: "<unk>", type: unknown },
    { text: "<s>", type: control },
    { text: "</s>", type: control },
  ];
  const bytes = Array.from({ length: 256 }, (_, i) => ({
    text: `<0x${i.toString(16).toUpperCase().padStart(2, "0")}>`,
    type: byte,
  }));
  const words = Array.from({ length: size - 259 }, (_, i) => ({ text: `word${i}`, type: normal }));
  return [...special, ...bytes, ...words];
}

/** A value of the metadata and its type's number. */
interface Typed {
  readonly type: number;
  readonly bytes: Buffer;
}

function entry(key: string, value: Typed): Buffer {
  return Buffer.concat([string(key).bytes, uint32(value.type).bytes, value.bytes]);
}

function array(items: readonly Typed[]): Typed {
  const head = [uint32(items[0]?.type ?? 0).bytes, uint64(items.length)];
  return { type: 9, bytes: Buffer.concat([...head, ...items.map(({ bytes }) => bytes)]) };
}

function string(text: string): Typed {
  const bytes = Buffer.from(text);
  return { type: 8, bytes: Buffer.concat([uint64(bytes.length), bytes]) };
}

function uint32(value: number): Typed {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return { type: 4, bytes };
}

function int32(value: number): Typed {
  const bytes = Buffer.alloc(4);
  bytes.writeInt32LE(value);
  return { type: 5, bytes };
}

function float32(value: number): Typed {
  const bytes = Buffer.alloc(4);
  bytes.writeFloatLE(value);
  return { type: 6, bytes };
}

function uint64(value: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value));
  return bytes;
}
