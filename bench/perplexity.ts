/** What rounding costs a language model: the perplexity of a text with its matrices in each precision. */

import { type PerplexityReport, perplexity } from "../src/evaluation/perplexity.ts";
import type { Checkpoint } from "../src/formats/open.ts";
import { isMatrix } from "../src/generation/language-model.ts";
import { type OpenLlama, openLlama } from "../src/models/llama-folder.ts";
import type { SessionOptions } from "../src/runtime/session.ts";
import { type BlockSize, type BlockSource, roundToInt8Blocks } from "../src/tensor/quant/blocks.ts";
import { quantizeInt4 } from "../src/tensor/quant/int4.ts";
import { quantizeRows } from "../src/tensor/quant/int8.ts";

export interface RoundedPerplexity extends PerplexityReport {
  readonly name: string;
}

/** Tells each result when it is there; the first is float32. */
export async function benchPerplexity(
  path: string,
  text: string,
  session: SessionOptions,
  onResult: (result: RoundedPerplexity) => void,
): Promise<void> {
  const llm = await openLlama(path);
  const measure = async (name: string, model: OpenLlama, precision: "float32" | "int4" | "int4-128" | "stored") =>
    onResult({ name, ...(await perplexity(model, text, { ...session, precision })) });
  await measure("float32", llm, "float32");
  await measure("the file's blocks", llm, "int4");
  await measure("4 bits in blocks of 128, also over the end of a row", llm, "int4-128");
  await measure("layers in bytes with a scale for each row, as prompts are read", inBytes(llm), "stored");
  for (const [bits, blockSize] of [
    [8, 64],
    [8, 32],
    [4, 64],
    [4, 32],
  ] as const) {
    await measure(`rounded to ${bits} bits in blocks of ${blockSize}`, rounded(llm, bits, blockSize), "stored");
  }
  await llm.checkpoint.close();
}

/** The model with its matrices rounded as `minigpt4 import` does, the table of embeddings to 8 bits. */
function rounded(llm: OpenLlama, bits: 4 | 8, blockSize: BlockSize): OpenLlama {
  return storedAs(llm, {
    blocks: (name) =>
      isMatrix(name) ? blocksOf(llm.checkpoint, name, name.includes("embed") ? 8 : bits, blockSize) : undefined,
  });
}

/** The model with the matrices of its layers as `chat/prefill.ts` multiplies them, all else in float32. */
function inBytes(llm: OpenLlama): OpenLlama {
  const { checkpoint } = llm;
  return storedAs(llm, {
    int8Columns(name) {
      const [rows = 0, columns = 0] = checkpoint.tensors.get(name)?.shape ?? [];
      if (!name.startsWith("model.layers.") || columns === 0) return undefined;
      return { tile: rows, load: async () => quantizeRows(await checkpoint.readFloat32(name), columns) };
    },
  });
}

function storedAs(
  { config, tokenizer, checkpoint }: OpenLlama,
  matrices: Pick<Checkpoint, "blocks" | "int8Columns">,
): OpenLlama {
  const { path, format, metadata, tensors } = checkpoint;
  const view: Checkpoint = {
    path,
    format,
    metadata,
    tensors,
    readFloat32: (name) => checkpoint.readFloat32(name),
    readBytes: (name) => checkpoint.readBytes(name),
    ...matrices,
    close: () => checkpoint.close(),
  };
  return { config, tokenizer, checkpoint: view };
}

function blocksOf(checkpoint: Checkpoint, name: string, bits: 4 | 8, blockSize: BlockSize): BlockSource | undefined {
  const [rows = 0, columns = 0] = checkpoint.tensors.get(name)?.shape ?? [];
  if (columns % blockSize !== 0) return undefined;
  return {
    format: { bits, minima: false, zeroPoints: bits === 4, blockSize },
    async load() {
      const values = await checkpoint.readFloat32(name);
      if (bits === 8) return roundToInt8Blocks(values, blockSize);
      const { nibbles, scales, zeroPoints } = quantizeInt4(values, rows, columns, blockSize);
      return { quants: nibbles.data, scales: scales.data, zeroPoints: zeroPoints.data };
    },
  };
}
