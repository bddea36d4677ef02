import { expect, test } from "vitest";
import { llamaConfigFromGguf, llamaConfigFromJson } from "../../src/models/llama-folder.ts";

const json = {
  model_type: "llama",
  vocab_size: 32001,
  hidden_size: 4096,
  intermediate_size: 11008,
  num_hidden_layers: 32,
  num_attention_heads: 32,
};

test("keys missing from older config.json files have LLaMA's defaults", () => {
  expect(llamaConfigFromJson(json, "config.json")).toEqual({
    vocabSize: 32001,
    hiddenSize: 4096,
    intermediateSize: 11008,
    numHiddenLayers: 32,
    numAttentionHeads: 32,
    numKeyValueHeads: 32,
    headDim: 128,
    rmsNormEps: 1e-6,
    ropeTheta: 10000,
    maxPositionEmbeddings: 2048,
    tieWordEmbeddings: false,
  });
  const newer = { ...json, num_key_value_heads: 8, head_dim: 64, rope_theta: 5e5, tie_word_embeddings: true };
  expect(llamaConfigFromJson(newer, "config.json")).toMatchObject({
    numKeyValueHeads: 8,
    headDim: 64,
    ropeTheta: 5e5,
    tieWordEmbeddings: true,
  });
});

test.each([
  [{ ...json, model_type: "mamba" }, /only the LLaMA family is supported/],
  [{ ...json, hidden_size: "4096" }, /hidden_size/],
  [{ ...json, num_hidden_layers: -1 }, /num_hidden_layers/],
  [{ ...json, rope_scaling: { type: "linear", factor: 2 } }, /scaled rotary embeddings are not supported/],
  [{ ...json, hidden_act: "gelu" }, /only the SiLU activation is supported/],
  [null, /expected object/],
])("what cannot be run is refused with its key (%#)", (broken, message) => {
  const read = () => llamaConfigFromJson(broken, "/models/x/config.json");
  expect(read).toThrow("/models/x/config.json does not describe a supported language model");
  expect(read).toThrow(message);
});

const metadata = {
  "llama.embedding_length": 576,
  "llama.attention.head_count": 9,
  "llama.attention.head_count_kv": 3,
  "llama.feed_forward_length": 1536,
  "llama.block_count": 30,
  "llama.attention.layer_norm_rms_epsilon": 1e-5,
  "llama.rope.freq_base": 100000,
  "llama.context_length": 8192,
};
const embeddings = ["model.embed_tokens.weight", { shape: [49152, 576] }] as const;

test("a GGUF file without an output matrix has tied embeddings", () => {
  const tied = llamaConfigFromGguf(metadata, new Map([embeddings]), "x.gguf");
  expect(tied).toMatchObject({ vocabSize: 49152, headDim: 64, numKeyValueHeads: 3, tieWordEmbeddings: true });
  const own = new Map([embeddings, ["lm_head.weight", { shape: [49152, 576] }]]);
  expect(llamaConfigFromGguf(metadata, own, "x.gguf").tieWordEmbeddings).toBe(false);
});

test("errors name a key that is missing or not a number", () => {
  const { "llama.block_count": _, ...rest } = metadata;
  expect(() => llamaConfigFromGguf(rest, new Map([embeddings]), "x.gguf")).toThrow(
    'x.gguf: the metadata key "llama.block_count" is missing; expected a number above 0',
  );
  const broken = { ...metadata, "llama.context_length": "long" };
  expect(() => llamaConfigFromGguf(broken, new Map([embeddings]), "x.gguf")).toThrow(
    /context_length" is "long"; expected a number above 0/,
  );
});
