import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type Checkpoint, openCheckpoint } from "../../src/formats/open.ts";
import { writeSafetensors } from "../../src/formats/safetensors.ts";
import { writeTorch } from "../../src/formats/torch/write.ts";
import { bertWeights } from "../../src/models/bert-weights.ts";
import { type QFormerConfig, qformerText } from "../../src/models/qformer.ts";
import { initialQFormer } from "../../src/models/qformer-init.ts";
import { Weights } from "../../src/nn/weights.ts";
import { evaluate } from "../../src/runtime/session.ts";
import { type NdArray, ndarray } from "../../src/tensor/array.ts";
import { Graph } from "../../src/tensor/graph.ts";
import { Random } from "../../src/tensor/random.ts";
import { overlayWeights } from "../../src/tensor/weight-source.ts";
import { inMemory, normal } from "../helpers/weights-in-memory.ts";

const [tokens, places, width, inner, layers, heads] = [11, 9, 12, 20, 3, 3];
const config = {
  numQueryTokens: 4,
  hiddenSize: width,
  numHiddenLayers: layers,
  numAttentionHeads: heads,
  intermediateSize: inner,
  encoderWidth: 5,
  crossAttentionFrequency: 2,
  layerNormEps: 1e-12,
  vocabSize: tokens + 1,
  maxPositionEmbeddings: 7,
} satisfies QFormerConfig;

type Arrays = Record<string, NdArray<"float32">>;

/** BERT as Hugging Face names it, with its language head. */
function randomBert(): Arrays {
  const random = new Random(5);
  const arrays: Arrays = {};
  const add = (name: string, ...shape: number[]) => {
    arrays[name] = normal(shape, random);
  };
  const pair = (name: string, ...shape: number[]) => {
    add(`${name}.weight`, ...shape);
    add(`${name}.bias`, shape[0] ?? 0);
  };
  add("embeddings.word_embeddings.weight", tokens, width);
  add("embeddings.position_embeddings.weight", places, width);
  add("embeddings.token_type_embeddings.weight", 2, width);
  pair("embeddings.LayerNorm", width);
  // One layer more than the Q-Former has.
  for (let i = 0; i <= layers; i++) {
    const layer = `encoder.layer.${i}`;
    for (const part of ["self.query", "self.key", "self.value", "output.dense"]) {
      pair(`${layer}.attention.${part}`, width, width);
    }
    pair(`${layer}.attention.output.LayerNorm`, width);
    pair(`${layer}.intermediate.dense`, inner, width);
    pair(`${layer}.output.dense`, width, inner);
    pair(`${layer}.output.LayerNorm`, width);
  }
  pair("pooler.dense", width, width);
  add("cls.predictions.bias", tokens);
  pair("cls.predictions.transform.dense", width, width);
  pair("cls.predictions.transform.LayerNorm", width);
  add("cls.predictions.decoder.weight", tokens, width);
  return arrays;
}

const bert = randomBert();

/** As `BertForMaskedLM` and the checkpoints of the first years have them. */
function renamed(arrays: Arrays): Arrays {
  const rename = (name: string) =>
    (name.startsWith("cls.") ? name : `bert.${name}`)
      .replace("LayerNorm.weight", "LayerNorm.gamma")
      .replace("LayerNorm.bias", "LayerNorm.beta");
  return Object.fromEntries(Object.entries(arrays).map(([name, array]) => [rename(name), array]));
}

let folder = "";
const open: Checkpoint[] = [];
async function checkpoint(name: string, write: (path: string) => Promise<void>): Promise<Checkpoint> {
  const path = join(folder, name);
  await write(path);
  const file = await openCheckpoint(path);
  open.push(file);
  return file;
}
let plain: Checkpoint;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "bert-"));
  plain = await checkpoint("model.safetensors", (path) => writeSafetensors(path, bert));
});
afterAll(async () => {
  for (const file of open) await file.close();
  await rm(folder, { recursive: true });
});

/** What `BertModel` computes of a text, [length, width], in plain arithmetic. */
function bertForward(arrays: Arrays, ids: readonly number[]): number[][] {
  const row = (name: string, i: number) => [...(arrays[name]?.data.slice(i * width, (i + 1) * width) ?? [])];
  const sum = (...rows: number[][]) => (rows[0] ?? []).map((_, i) => rows.reduce((total, r) => total + (r[i] ?? 0), 0));
  const dot = (a: readonly number[], b: readonly number[]) => a.reduce((total, x, i) => total + x * (b[i] ?? 0), 0);
  const linear = (name: string, x: readonly number[]) =>
    [...(arrays[`${name}.bias`]?.data ?? [])].map(
      (bias, out) =>
        bias + dot(x, [...(arrays[`${name}.weight`]?.data.slice(out * x.length, (out + 1) * x.length) ?? [])]),
    );
  const norm = (name: string, x: readonly number[]) => {
    const mean = dot(x, Array(x.length).fill(1 / x.length));
    const variance = dot(
      Array(x.length).fill(1 / x.length),
      x.map((value) => (value - mean) ** 2),
    );
    const [scale, shift] = [row(`${name}.weight`, 0), row(`${name}.bias`, 0)];
    return x.map((value, i) => ((value - mean) / Math.sqrt(variance + 1e-12)) * (scale[i] ?? 0) + (shift[i] ?? 0));
  };
  const softmax = (scores: readonly number[]) => {
    const powers = scores.map((score) => Math.exp(score - Math.max(...scores)));
    return powers.map((power) => power / powers.reduce((a, b) => a + b));
  };
  const attend = (layer: string, x: number[][]) => {
    const [q, k, v] = ["query", "key", "value"].map((part) => x.map((r) => linear(`${layer}.self.${part}`, r)));
    const size = width / heads;
    const part = (r: readonly number[] | undefined, head: number) => (r ?? []).slice(head * size, (head + 1) * size);
    return x.map((_, i) =>
      Array.from({ length: heads }, (_, head) => {
        const shares = softmax(x.map((_, j) => dot(part(q?.[i], head), part(k?.[j], head)) / Math.sqrt(size)));
        return sum(...shares.map((share, j) => part(v?.[j], head).map((value) => share * value)));
      }).flat(),
    );
  };
  let x = ids.map((id, place) => {
    const words = row("embeddings.word_embeddings.weight", id);
    const position = row("embeddings.position_embeddings.weight", place);
    return norm("embeddings.LayerNorm", sum(words, position, row("embeddings.token_type_embeddings.weight", 0)));
  });
  for (let i = 0; i < layers; i++) {
    const layer = `encoder.layer.${i}`;
    const attended = attend(`${layer}.attention`, x).map((seen, at) =>
      norm(`${layer}.attention.output.LayerNorm`, sum(x[at] ?? [], linear(`${layer}.attention.output.dense`, seen))),
    );
    x = attended.map((r) => {
      const hidden = linear(`${layer}.intermediate.dense`, r).map(gelu);
      return norm(`${layer}.output.LayerNorm`, sum(r, linear(`${layer}.output.dense`, hidden)));
    });
  }
  return x;
}

/** x times the normal distribution's share below x, by the series of the error function. */
function gelu(x: number): number {
  if (Math.abs(x) > 6) return Math.max(x, 0);
  const z = x / Math.SQRT2;
  let [power, sum] = [z, z];
  for (let n = 1; n < 150; n++) {
    power *= -(z * z) / n;
    sum += power / (2 * n + 1);
  }
  return (x * (1 + (2 / Math.sqrt(Math.PI)) * sum)) / 2;
}

async function textSide(file: Checkpoint, ids: readonly number[]): Promise<Float32Array> {
  const graph = new Graph();
  const shape = [1, ids.length];
  const row = (values: readonly number[]) =>
    graph.constant(ndarray("int64", shape, BigInt64Array.from(values, BigInt)));
  const text = { ids: row(ids), attentionMask: row(ids.map(() => 1)) };
  const y = qformerText(new Weights(graph, bertWeights(file, config, new Random(1))), text, config);
  return (await evaluate(graph, { y })).y.data as Float32Array;
}

describe("the text side computes the same as the BERT", () => {
  test.each<[string, string, (path: string) => Promise<void>]>([
    ["safetensors", "a.safetensors", (path) => writeSafetensors(path, bert)],
    ["safetensors with prefix and old names", "b.safetensors", (path) => writeSafetensors(path, renamed(bert))],
    ["torch", "c.bin", (path) => writeTorch(path, bert)],
    ["torch with prefix and old names", "d.bin", (path) => writeTorch(path, renamed(bert))],
  ])("%s", async (_, name, write) => {
    const ids = [2, 7, 0, 10, 3];
    const found = await textSide(await checkpoint(name, write), ids);
    const expected = bertForward(bert, ids).flat();
    expect(found).toHaveLength(expected.length);
    for (const [i, value] of expected.entries()) expect(found[i]).toBeCloseTo(value, 4);
  });

  test("a folder", async () => {
    const file = await openCheckpoint(folder);
    expect(await textSide(file, [1, 4])).toEqual(await textSide(plain, [1, 4]));
    await file.close();
  });
});

test("overlaid on new weights it is a complete Q-Former; queries start from the text's layers", async () => {
  const source = bertWeights(plain, config, new Random(1));
  const complete = initialQFormer(config, new Random(2));
  const own = Object.keys(complete).filter((name) => !source.tensors.has(name));
  expect(own.every((name) => name === "query_tokens" || name.includes("crossattention"))).toBe(true);
  for (const [name, { shape }] of source.tensors) {
    expect(complete[name]?.shape, name).toEqual(shape);
    expect(await source.readFloat32(name), name).toHaveLength(complete[name]?.data.length ?? -1);
  }
  const layered = overlayWeights([source, inMemory(complete)]);
  expect(new Set(layered.tensors.keys())).toEqual(new Set(Object.keys(complete)));
  for (const part of ["intermediate", "output"]) {
    const name = `encoder.layer.1.${part}.dense.weight`;
    const copy = name.replace(part, `${part}_query`);
    expect(await source.readFloat32(`Qformer.bert.${name}`)).toEqual(bert[name]?.data);
    expect(await source.readFloat32(`Qformer.bert.${copy}`)).toEqual(bert[name]?.data);
  }
  await expect(source.readFloat32("query_tokens")).rejects.toThrow('model.safetensors has no tensor "query_tokens"');
});

test("[DEC] has its own row, determined by the seed, and no bias", async () => {
  const source = bertWeights(plain, config, new Random(1));
  const table = await source.readFloat32("Qformer.bert.embeddings.word_embeddings.weight");
  expect(table.slice(0, -width)).toEqual(bert["embeddings.word_embeddings.weight"]?.data);
  const row = table.slice(-width);
  expect(row.every((value) => value !== 0 && Math.abs(value) < 0.12)).toBe(true);
  expect(await source.readFloat32("Qformer.bert.embeddings.word_embeddings.weight")).toEqual(table);
  const bias = await source.readFloat32("Qformer.cls.predictions.bias");
  expect([...bias]).toEqual([...(bert["cls.predictions.bias"]?.data ?? []), 0]);
});

test("a BERT without a language modeling head gives none", async () => {
  const headless = Object.fromEntries(Object.entries(bert).filter(([name]) => !name.startsWith("cls.")));
  const file = await checkpoint("headless.safetensors", (path) => writeSafetensors(path, headless));
  const { tensors } = bertWeights(file, config, new Random(1));
  expect([...tensors.keys()].filter((name) => name.includes("cls"))).toEqual([]);
});

describe("a BERT of another size is an error with tensor, shapes and remedy", () => {
  test.each<[string, Partial<QFormerConfig>, string]>([
    [
      "width",
      { hiddenSize: 24 },
      '"embeddings.LayerNorm.weight" is [12], but this Q-Former needs [24]; omit model.bert_ckpt to initialize at random, ' +
        "or set model.qformer.hidden_size to 12",
    ],
    [
      "inner width",
      { intermediateSize: 48 },
      '"encoder.layer.0.intermediate.dense.weight" is [20, 12], but this Q-Former needs [48, 12]; omit model.bert_ckpt ' +
        "to initialize at random, or set model.qformer.intermediate_size to 20",
    ],
    [
      "fewer layers",
      { numHiddenLayers: 6 },
      'has no tensor "encoder.layer.4.attention.self.query.weight" (expected [12, 12]), with or without the prefix "bert."; ' +
        "omit model.bert_ckpt to initialize at random, or set model.qformer.num_hidden_layers to 4",
    ],
    [
      "another vocabulary",
      { vocabSize: 11 },
      '"embeddings.word_embeddings.weight" is [11, 12], but this Q-Former needs [10, 12]; omit model.bert_ckpt to ' +
        "initialize at random, or use the vocabulary of this BERT, which has 11 tokens",
    ],
    [
      "fewer positions",
      { maxPositionEmbeddings: 10 },
      '"embeddings.position_embeddings.weight" is [9, 12], but this Q-Former needs [10, 12]; omit model.bert_ckpt ' +
        "to initialize at random, or set model.max_position_embeddings to 9",
    ],
  ])("%s", (_, change, message) => {
    const build = () => bertWeights(plain, { ...config, ...change }, new Random(1));
    expect(build).toThrow(message);
    expect(build).toThrow(plain.path);
  });

  test("a checkpoint that is not a BERT", async () => {
    const other = { "model.embed_tokens.weight": normal([4, 4], 1) };
    const file = await checkpoint("llama.safetensors", (path) => writeSafetensors(path, other));
    expect(() => bertWeights(file, config, new Random(1))).toThrow(
      `${file.path} has no tensor "embeddings.LayerNorm.weight" (expected [12]), with or without the prefix "bert."; ` +
        "omit model.bert_ckpt to initialize at random",
    );
  });
});
