/** A LLaMA with random weights that is small enough to try everything, and a tokenizer whose tokens are bytes. */
import type { LanguageModel } from "../../src/generation/language-model.ts";
import { createLanguageModel } from "../../src/generation/load.ts";
import type { LlamaConfig } from "../../src/models/llama.ts";
import { sizeOf } from "../../src/tensor/array.ts";
import { Random } from "../../src/tensor/random.ts";
import { denseMatrix, type WeightSource } from "../../src/tensor/weight-source.ts";
import { createTokenizer, type Tokenizer } from "../../src/tokenizers/tokenizer.ts";

export function tinyConfig(vocabSize: number): LlamaConfig {
  return {
    vocabSize,
    hiddenSize: 16,
    intermediateSize: 24,
    numHiddenLayers: 2,
    numAttentionHeads: 4,
    numKeyValueHeads: 2,
    headDim: 4,
    rmsNormEps: 1e-5,
    ropeTheta: 10000,
    maxPositionEmbeddings: 512,
    tieWordEmbeddings: false,
  };
}

/** Normally distributed matrices, large enough that the scores of tokens differ clearly. */
export function randomLlama(config: LlamaConfig, seed: number): WeightSource {
  const { hiddenSize: h, intermediateSize, headDim, numAttentionHeads, numKeyValueHeads, vocabSize } = config;
  const tensors = new Map<string, { shape: readonly number[] }>();
  const add = (name: string, ...shape: number[]) => tensors.set(name, { shape });
  add("model.embed_tokens.weight", vocabSize, h);
  add("model.norm.weight", h);
  add("lm_head.weight", vocabSize, h);
  for (let i = 0; i < config.numHiddenLayers; i++) {
    const layer = `model.layers.${i}`;
    add(`${layer}.input_layernorm.weight`, h);
    add(`${layer}.post_attention_layernorm.weight`, h);
    add(`${layer}.self_attn.q_proj.weight`, numAttentionHeads * headDim, h);
    add(`${layer}.self_attn.k_proj.weight`, numKeyValueHeads * headDim, h);
    add(`${layer}.self_attn.v_proj.weight`, numKeyValueHeads * headDim, h);
    add(`${layer}.self_attn.o_proj.weight`, h, numAttentionHeads * headDim);
    add(`${layer}.mlp.gate_proj.weight`, intermediateSize, h);
    add(`${layer}.mlp.up_proj.weight`, intermediateSize, h);
    add(`${layer}.mlp.down_proj.weight`, h, intermediateSize);
  }
  const random = new Random(seed);
  const values = new Map(
    [...tensors].map(([name, { shape }]) => [
      name,
      Float32Array.from({ length: sizeOf(shape) }, () => random.normal() * 0.6),
    ]),
  );
  return {
    path: "random",
    tensors,
    readFloat32: async (name) => values.get(name) ?? new Float32Array(0),
    matrix(name) {
      return denseMatrix(this, name);
    },
  };
}

export function tinyLanguageModel(vocabSize: number, seed = 1): Promise<LanguageModel> {
  const config = tinyConfig(vocabSize);
  return createLanguageModel(randomLlama(config, seed), config, { threads: 1 });
}

const [bos, eos] = [256, 257];

/** Tokens 0 to 255 are bytes, 256 begins a sequence, 257 ends it. */
export const byteTokenizer: Tokenizer = createTokenizer({
  pieces: Array.from({ length: 258 }, (_, id) => ({ bytes: Uint8Array.of(id & 255), control: id >= bos })),
  bosId: bos,
  eosId: eos,
  padId: eos,
  strippedSpaces: 0,
  controlTokens: new Map(),
  wholeTokens: new Map(),
  encodeOrdinary: (text) => [...new TextEncoder().encode(text)],
});
