/** What rounding costs a language model: the perplexity of a text with its matrices in each quantization. */

import { type PerplexityReport, perplexity } from "../src/evaluation/perplexity.ts";
import type { Checkpoint } from "../src/formats/open.ts";
import { llamaMatrices } from "../src/models/llama.ts";
import { type OpenLlama, openLlama } from "../src/models/llama-folder.ts";
import type { SessionOptions } from "../src/runtime/session.ts";
import { BlockMatrix, type BlockSize, quantizeBlocks } from "../src/tensor/quant/blocks.ts";
import { DenseMatrix } from "../src/tensor/quant/dense.ts";
import { Int8Matrix } from "../src/tensor/quant/int8.ts";
import type { Matrix } from "../src/tensor/quant/matrix.ts";
import type { Quantization } from "../src/tensor/quant/quantization.ts";

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
  const measure = async (name: string, model: OpenLlama, quantization: Quantization) =>
    onResult({ name, ...(await perplexity(model, text, { ...session, quantization })) });
  await measure("float32", llm, "float32");
  await measure("the file's blocks", llm, "int4");
  await measure("4 bits in blocks of 128, also over the end of a row", llm, { bits: 4, blockSize: 128 });
  await measure("layers in bytes with a scale for each row, as prompts are read", inInt8(llm), "native");
  for (const [bits, blockSize] of [
    [8, 64],
    [8, 32],
    [4, 64],
    [4, 32],
  ] as const) {
    await measure(`rounded to ${bits} bits in blocks of ${blockSize}`, rounded(llm, bits, blockSize), "native");
  }
  await llm.checkpoint.close();
}

/** The model with its matrices rounded as `minigpt4 import` does, the table of embeddings to 8 bits. */
function rounded(llm: OpenLlama, bits: 4 | 8, blockSize: BlockSize): OpenLlama {
  return withMatrices(llm, (matrix) => {
    if (!llamaMatrices.inBlocks(matrix.name) || matrix.columns % blockSize !== 0) return DenseMatrix.from(matrix);
    const { name, rows, columns } = matrix;
    const format = { bits: name.includes("embed") ? 8 : bits, minima: false, blockSize } as const;
    return new BlockMatrix({
      name,
      rows,
      columns,
      format: { ...format, zeroPoints: format.bits === 4 },
      load: async () => quantizeBlocks(await matrix.readFloat32(), columns, format),
    });
  });
}

/** The model with the matrices of its layers as `generation/prefill.ts` multiplies them, all else in float32. */
function inInt8(llm: OpenLlama): OpenLlama {
  return withMatrices(llm, (matrix) =>
    matrix.name.startsWith("model.layers.") && matrix.columns > 1 ? new Int8Matrix(matrix) : DenseMatrix.from(matrix),
  );
}

function withMatrices(llm: OpenLlama, quantize: (matrix: Matrix) => Matrix): OpenLlama {
  const view: Checkpoint = Object.create(llm.checkpoint, {
    matrix: { value: (name: string) => quantize(llm.checkpoint.matrix(name)) },
  });
  return { ...llm, checkpoint: view };
}
