/**
 * Initializes a Q-Former from a BERT, as in BLIP-2 (Li et al., arXiv 2301.12597, section 3.1): text and queries both start from its
 * layers. Tensors that a BERT does not have (queries, cross-attention, heads) are not included.
 */
import type { Checkpoint } from "../formats/open.ts";
import { concatFloat32 } from "../tensor/array.ts";
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
 * Maps a checkpoint with Hugging Face's names (with or without the prefix "bert.", norms also with `gamma` and `beta`) to BLIP-2's names
 * (`Qformer.bert...`, and `Qformer.cls...` if the file has BERT's language modeling head).
 *
 * The word embeddings get another row, for [DEC], at random. A Q-Former has no token types: BERT's first type embedding is added to every
 * position, so that the text side computes the same as the BERT. Extra layers and positions of the BERT are ignored.
 *
 * @param bert read when weights are read; the caller closes it
 * @throws Error with file, tensor, shapes and a remedy if the BERT does not have the Q-Former's size
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
      tensors.set(name, appendRow(findTensor(bert, source, [vocabSize - 1, hiddenSize]), newWord, shape));
    } else if (source === wordBias) {
      tensors.set(name, appendRow(findTensor(bert, source, [vocabSize - 1]), Float32Array.of(0), shape));
    } else if (source === positions) {
      tensors.set(name, addTokenType(findTable(bert, source, shape), findTable(bert, types, [1, hiddenSize]), shape));
    } else {
      tensors.set(name, findTensor(bert, source, shape));
    }
  }
  return {
    path: bert.path,
    tensors,
    async readFloat32(name) {
      const tensor = tensors.get(name);
      if (!tensor) throw new Error(`${bert.path} has no tensor "${name}"`);
      return tensor.read();
    },
    matrix(name) {
      return denseMatrix(this, name);
    },
  };
}

/** BERT's name of a Q-Former's tensor; undefined if a BERT does not have it. Queries are initialized from the text's layers. */
function bertName(name: string): string | undefined {
  if (name === "query_tokens" || name.includes(".crossattention.")) return undefined;
  return name.replace(/^Qformer\.(bert\.)?/, "").replace(/\.(intermediate|output)_query\./, ".$1.");
}

/** Finds the name of a tensor in the file. Old checkpoints name the parameters of norms gamma and beta. */
function find({ tensors }: Checkpoint, name: string): string | undefined {
  const old = name.replace(/LayerNorm\.weight$/, "LayerNorm.gamma").replace(/LayerNorm\.bias$/, "LayerNorm.beta");
  return [`bert.${name}`, name, `bert.${old}`, old].find((candidate) => tensors.has(candidate));
}

function findTensor(bert: Checkpoint, name: string, expected: readonly number[]): Tensor {
  const stored = find(bert, name);
  const shape = stored === undefined ? undefined : bert.tensors.get(stored)?.shape;
  if (stored === undefined || !shape || !sameShape(shape, expected)) throw mismatchError(bert, name, expected);
  return { shape, read: () => bert.readFloat32(stored) };
}

/** Finds a table with at least the expected number of rows. */
function findTable(bert: Checkpoint, name: string, expected: readonly number[]): Tensor {
  const [rows = 0] = bert.tensors.get(find(bert, name) ?? "")?.shape ?? [];
  const [minimum = 0, ...row] = expected;
  return findTensor(bert, name, rows > minimum ? [rows, ...row] : expected);
}

/** Appends a row to a table. */
function appendRow(tensor: Tensor, row: Float32Array, shape: readonly number[]): Tensor {
  return {
    shape,
    async read() {
      return concatFloat32([await tensor.read(), row]);
    },
  };
}

/** Adds the first token type embedding to every row of a table. */
function addTokenType(table: Tensor, type: Tensor, shape: readonly number[]): Tensor {
  const [rows = 0, width = 0] = shape;
  return {
    shape,
    async read() {
      const first = await type.read();
      return (await table.read()).slice(0, rows * width).map((value, i) => value + (first[i % width] as number));
    },
  };
}

function mismatchError(bert: Checkpoint, name: string, expected: readonly number[]): Error {
  const stored = find(bert, name) ?? "";
  const found = bert.tensors.get(stored)?.shape;
  const what = found
    ? `${bert.path}: tensor "${stored}" is ${formatShape(found)}, but this Q-Former needs ${formatShape(expected)}`
    : `${bert.path} has no tensor "${name}" (expected ${formatShape(expected)}), with or without the prefix "bert."`;
  const remedy = suggestRemedy(name, found);
  return new Error(`${what}; omit model.bert_ckpt to initialize at random${remedy ? `, or ${remedy}` : ""}`);
}

/** Suggests how to make the Q-Former match this BERT. */
function suggestRemedy(name: string, found?: readonly number[]): string | undefined {
  const layer = /^encoder\.layer\.(\d+)\./.exec(name)?.[1];
  if (!found) return layer && layer !== "0" ? `set model.qformer.num_hidden_layers to ${layer}` : undefined;
  const [size] = found;
  if (name === "embeddings.LayerNorm.weight") return `set model.qformer.hidden_size to ${size}`;
  if (name.endsWith(".intermediate.dense.weight")) return `set model.qformer.intermediate_size to ${size}`;
  if (name === words) return `use the vocabulary of this BERT, which has ${size} tokens`;
  if (name === positions) return `set model.max_position_embeddings to ${size}`;
  return undefined;
}
