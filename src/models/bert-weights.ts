/**
 * A BERT as the beginning of a Q-Former, as BLIP-2 takes it (arXiv 2301.12597, section 3.1): its layers become those of the
 * text, and of the queries too. What a BERT has not (queries, cross-attention, heads) is to come from elsewhere.
 */
import type { Checkpoint } from "../formats/open.ts";
import type { Random } from "../tensor/random.ts";
import { formatShape, sameShape } from "../tensor/shapes.ts";
import { denseMatrix, type WeightSource } from "../tensor/weight-source.ts";
import type { QFormerConfig } from "./qformer.ts";
import { normalNumbers, qformerTensors } from "./qformer-init.ts";

interface Tensor {
  readonly shape: readonly number[];
  read(): Promise<Float32Array>;
}

const words = "embeddings.word_embeddings.weight";
const positions = "embeddings.position_embeddings.weight";
const types = "embeddings.token_type_embeddings.weight";
const wordBias = "cls.predictions.bias";

/**
 * Weights under BLIP-2's names (`Qformer.bert...`, and `Qformer.cls...` where the file has BERT's language head) from a
 * checkpoint with Hugging Face's: with or without "bert." before them, norms also with `gamma` and `beta`.
 *
 * The words get one row more, for [DEC], at random. A Q-Former has no types of tokens: BERT's first type is added to every
 * position, so that the text side computes what the BERT does. Layers and positions beyond the Q-Former's are left out.
 *
 * @param bert is read when weights are, and stays the caller's to close
 * @throws Error naming file, tensor and shapes where the BERT is not of the Q-Former's size, and what to do
 */
export function bertWeights(bert: Checkpoint, config: QFormerConfig, random: Random): WeightSource {
  const { hiddenSize, vocabSize, maxPositionEmbeddings } = config;
  if (!vocabSize || !maxPositionEmbeddings) throw new Error("This Q-Former's config has no text side (vocabSize)");
  const newWord = normalNumbers(hiddenSize, random);
  const tensors = new Map<string, Tensor>();
  for (const { name, shape } of qformerTensors(config)) {
    const source = bertName(name);
    if (source === undefined || (source.startsWith("cls.") && !find(bert, source))) continue;
    if (source === words) {
      tensors.set(name, longer(tensorOf(bert, source, [vocabSize - 1, hiddenSize]), newWord, shape));
    } else if (source === wordBias) {
      tensors.set(name, longer(tensorOf(bert, source, [vocabSize - 1]), Float32Array.of(0), shape));
    } else if (source === positions) {
      tensors.set(name, ofFirstType(atLeast(bert, source, shape), atLeast(bert, types, [1, hiddenSize]), shape));
    } else {
      tensors.set(name, tensorOf(bert, source, shape));
    }
  }
  return {
    path: bert.path,
    tensors,
    async readFloat32(name) {
      const tensor = tensors.get(name);
      if (!tensor) throw new Error(`${bert.path} has nothing for tensor "${name}"`);
      return tensor.read();
    },
    matrix(name) {
      return denseMatrix(this, name);
    },
  };
}

/** BERT's name for what a Q-Former has; undefined for what is the Q-Former's own. Queries begin with the text's layers. */
function bertName(name: string): string | undefined {
  if (name === "query_tokens" || name.includes(".crossattention.")) return undefined;
  return name.replace(/^Qformer\.(bert\.)?/, "").replace(/\.(intermediate|output)_query\./, ".$1.");
}

/** The name of a tensor in the file. Checkpoints of the first years call a norm's weight gamma and its bias beta. */
function find({ tensors }: Checkpoint, name: string): string | undefined {
  const old = name.replace(/LayerNorm\.weight$/, "LayerNorm.gamma").replace(/LayerNorm\.bias$/, "LayerNorm.beta");
  return [`bert.${name}`, name, `bert.${old}`, old].find((candidate) => tensors.has(candidate));
}

function tensorOf(bert: Checkpoint, name: string, expected: readonly number[]): Tensor {
  const stored = find(bert, name);
  const shape = stored === undefined ? undefined : bert.tensors.get(stored)?.shape;
  if (stored === undefined || !shape || !sameShape(shape, expected)) throw unfit(bert, name, expected);
  return { shape, read: () => bert.readFloat32(stored) };
}

/** A table with as many rows as expected, or more. */
function atLeast(bert: Checkpoint, name: string, expected: readonly number[]): Tensor {
  const [rows = 0] = bert.tensors.get(find(bert, name) ?? "")?.shape ?? [];
  const [fewest = 0, ...row] = expected;
  return tensorOf(bert, name, rows > fewest ? [rows, ...row] : expected);
}

function longer(tensor: Tensor, row: Float32Array, shape: readonly number[]): Tensor {
  return {
    shape,
    async read() {
      const given = await tensor.read();
      const all = new Float32Array(given.length + row.length);
      all.set(given);
      all.set(row, given.length);
      return all;
    },
  };
}

function ofFirstType(table: Tensor, type: Tensor, shape: readonly number[]): Tensor {
  const [rows = 0, width = 0] = shape;
  return {
    shape,
    async read() {
      const first = await type.read();
      return (await table.read()).slice(0, rows * width).map((value, i) => value + (first[i % width] as number));
    },
  };
}

function unfit(bert: Checkpoint, name: string, expected: readonly number[]): Error {
  const stored = find(bert, name) ?? "";
  const found = bert.tensors.get(stored)?.shape;
  const what = found
    ? `${bert.path}: tensor "${stored}" is ${formatShape(found)}, but this Q-Former needs ${formatShape(expected)}`
    : `${bert.path} has no tensor "${name}" (expected ${formatShape(expected)}), nor with "bert." before it`;
  const remedy = remedyOf(name, found);
  return new Error(`${what}; leave model.bert_ckpt out to begin at random${remedy ? `, or ${remedy}` : ""}`);
}

/** How the Q-Former would fit this BERT. */
function remedyOf(name: string, found?: readonly number[]): string | undefined {
  const layer = /^encoder\.layer\.(\d+)\./.exec(name)?.[1];
  if (!found) return layer && layer !== "0" ? `set model.qformer.num_hidden_layers to ${layer}` : undefined;
  const [size] = found;
  if (name === "embeddings.LayerNorm.weight") return `set model.qformer.hidden_size to ${size}`;
  if (name.endsWith(".intermediate.dense.weight")) return `set model.qformer.intermediate_size to ${size}`;
  if (name === words) return `take the vocabulary of this BERT, which has ${size} tokens`;
  if (name === positions) return `set model.max_position_embeddings to ${size}`;
  return undefined;
}
