/** A new Q-Former (image side) and projection: names, shapes, and the values that training begins with. */
import { type NdArray, ndarray, sizeOf } from "../tensor/array.ts";
import type { Random } from "../tensor/random.ts";
import type { EncoderConfig } from "./minigpt4.ts";
import type { QFormerConfig } from "./qformer.ts";

export type NamedArrays = Record<string, NdArray<"float32">>;

/** As BERT begins: matrices normal with standard deviation 0.02, biases 0, norms 1. */
const standardDeviation = 0.02;

/** `query_tokens` and `Qformer.bert...` without the text side. */
export function initialQFormer(config: QFormerConfig, random: Random): NamedArrays {
  const { hiddenSize, intermediateSize, encoderWidth, numQueryTokens } = config;
  const arrays: NamedArrays = { query_tokens: normal([1, numQueryTokens, hiddenSize], standardDeviation, random) };
  const linear = (name: string, out: number, size: number) => {
    arrays[`${name}.weight`] = normal([out, size], standardDeviation, random);
    arrays[`${name}.bias`] = filled([out], 0);
  };
  const norm = (name: string) => {
    arrays[`${name}.weight`] = filled([hiddenSize], 1);
    arrays[`${name}.bias`] = filled([hiddenSize], 0);
  };
  const attention = (name: string, width: number) => {
    linear(`${name}.self.query`, hiddenSize, hiddenSize);
    linear(`${name}.self.key`, hiddenSize, width);
    linear(`${name}.self.value`, hiddenSize, width);
    linear(`${name}.output.dense`, hiddenSize, hiddenSize);
    norm(`${name}.output.LayerNorm`);
  };
  norm("Qformer.bert.embeddings.LayerNorm");
  for (let i = 0; i < config.numHiddenLayers; i++) {
    const layer = `Qformer.bert.encoder.layer.${i}`;
    attention(`${layer}.attention`, hiddenSize);
    if (i % config.crossAttentionFrequency === 0) attention(`${layer}.crossattention`, encoderWidth);
    linear(`${layer}.intermediate_query.dense`, intermediateSize, hiddenSize);
    linear(`${layer}.output_query.dense`, hiddenSize, intermediateSize);
    norm(`${layer}.output_query.LayerNorm`);
  }
  return arrays;
}

/** `llama_proj`: width of the image tokens -> hidden size of the language model. */
export function initialProjection(width: number, hiddenSize: number, random: Random): NamedArrays {
  return {
    "llama_proj.weight": normal([hiddenSize, width], standardDeviation, random),
    "llama_proj.bias": filled([hiddenSize], 0),
  };
}

/** `ln_vision` behind a ViT; nothing behind another encoder. */
export function initialLnVision(encoder: EncoderConfig): NamedArrays {
  if (encoder.type !== "eva_vit") return {};
  const { hiddenSize } = encoder;
  return { "ln_vision.weight": filled([hiddenSize], 1), "ln_vision.bias": filled([hiddenSize], 0) };
}

function normal(shape: readonly number[], deviation: number, random: Random): NdArray<"float32"> {
  const values = Float32Array.from({ length: sizeOf(shape) }, () => random.normal() * deviation);
  return ndarray("float32", shape, values);
}

function filled(shape: readonly number[], value: number): NdArray<"float32"> {
  return ndarray("float32", shape, new Float32Array(sizeOf(shape)).fill(value));
}
