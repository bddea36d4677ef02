/** Initialization of a new Q-Former, heads and projection: names, shapes and initial values. */
import { type NdArray, ndarray, sizeOf } from "../tensor/array.ts";
import type { Random } from "../tensor/random.ts";
import type { QFormerConfig } from "./qformer.ts";

export type NamedArrays = Record<string, NdArray<"float32">>;

/** A tensor and its initial values: a constant, or normally distributed numbers. */
interface NewTensor {
  readonly name: string;
  readonly shape: readonly number[];
  readonly init: number | "normal";
}

/** BERT's initialization: matrices normal with this standard deviation, biases 0, norms 1. */
const standardDeviation = 0.02;

/** Initializes `query_tokens` and `Qformer...`: the image side, then the text side if the config has one. */
export function initialQFormer(config: QFormerConfig, random: Random): NamedArrays {
  return initialize(qformerTensors(config), random);
}

/**
 * Initializes the heads of BLIP-2's first stage: `vision_proj` and `text_proj` into the shared embedding space of `embedDim` dimensions,
 * `itm_head` (no match, match), and the temperature `temp`.
 */
export function initialHeads({ hiddenSize }: QFormerConfig, embedDim: number, random: Random): NamedArrays {
  const tensors = [
    ...linear("vision_proj", embedDim, hiddenSize),
    ...linear("text_proj", embedDim, hiddenSize),
    ...linear("itm_head", 2, hiddenSize),
    { name: "temp", shape: [], init: 0.07 },
  ];
  return initialize(tensors, random);
}

/** Initializes `llama_proj`: width of the image tokens -> hidden size of the language model. */
export function initialProjection(width: number, hiddenSize: number, random: Random): NamedArrays {
  return initialize(linear("llama_proj", hiddenSize, width), random);
}

/** Initializes `ln_vision`, the norm between an image encoder and the Q-Former. */
export function initialLnVision(width: number, random: Random): NamedArrays {
  return initialize(norm("ln_vision", width), random);
}

/**
 * All tensors of a Q-Former. The image side comes first, in a fixed order, so that the same seed initializes it equally with and without
 * a text side.
 */
export function* qformerTensors(config: QFormerConfig): Generator<NewTensor> {
  const { hiddenSize, numHiddenLayers, numQueryTokens, vocabSize, maxPositionEmbeddings } = config;
  yield { name: "query_tokens", shape: [1, numQueryTokens, hiddenSize], init: "normal" };
  yield* norm("Qformer.bert.embeddings.LayerNorm", hiddenSize);
  for (let i = 0; i < numHiddenLayers; i++) {
    const layer = `Qformer.bert.encoder.layer.${i}`;
    yield* attention(`${layer}.attention`, hiddenSize, hiddenSize);
    if (i % config.crossAttentionFrequency === 0) {
      yield* attention(`${layer}.crossattention`, hiddenSize, config.encoderWidth);
    }
    yield* feedForward(`${layer}.intermediate_query`, `${layer}.output_query`, config);
  }
  if (!vocabSize || !maxPositionEmbeddings) return;
  yield* textTensors({ ...config, vocabSize, maxPositionEmbeddings });
}

function* textTensors(config: Required<QFormerConfig>): Generator<NewTensor> {
  const { hiddenSize, numHiddenLayers, vocabSize, maxPositionEmbeddings } = config;
  const embeddings = "Qformer.bert.embeddings";
  yield { name: `${embeddings}.word_embeddings.weight`, shape: [vocabSize, hiddenSize], init: "normal" };
  yield {
    name: `${embeddings}.position_embeddings.weight`,
    shape: [maxPositionEmbeddings, hiddenSize],
    init: "normal",
  };
  for (let i = 0; i < numHiddenLayers; i++) {
    const layer = `Qformer.bert.encoder.layer.${i}`;
    yield* feedForward(`${layer}.intermediate`, `${layer}.output`, config);
  }
  yield* linear("Qformer.cls.predictions.transform.dense", hiddenSize, hiddenSize);
  yield* norm("Qformer.cls.predictions.transform.LayerNorm", hiddenSize);
  yield { name: "Qformer.cls.predictions.bias", shape: [vocabSize], init: 0 };
}

function attention(name: string, hiddenSize: number, contextSize: number): NewTensor[] {
  return [
    ...linear(`${name}.self.query`, hiddenSize, hiddenSize),
    ...linear(`${name}.self.key`, hiddenSize, contextSize),
    ...linear(`${name}.self.value`, hiddenSize, contextSize),
    ...linear(`${name}.output.dense`, hiddenSize, hiddenSize),
    ...norm(`${name}.output.LayerNorm`, hiddenSize),
  ];
}

function feedForward(inner: string, outer: string, { hiddenSize, intermediateSize }: QFormerConfig): NewTensor[] {
  return [
    ...linear(`${inner}.dense`, intermediateSize, hiddenSize),
    ...linear(`${outer}.dense`, hiddenSize, intermediateSize),
    ...norm(`${outer}.LayerNorm`, hiddenSize),
  ];
}

function linear(name: string, out: number, size: number): NewTensor[] {
  return [
    { name: `${name}.weight`, shape: [out, size], init: "normal" },
    { name: `${name}.bias`, shape: [out], init: 0 },
  ];
}

function norm(name: string, size: number): NewTensor[] {
  return [
    { name: `${name}.weight`, shape: [size], init: 1 },
    { name: `${name}.bias`, shape: [size], init: 0 },
  ];
}

function initialize(tensors: Iterable<NewTensor>, random: Random): NamedArrays {
  const arrays: NamedArrays = {};
  for (const { name, shape, init } of tensors) {
    const size = sizeOf(shape);
    const data = init === "normal" ? normalNumbers(size, random) : new Float32Array(size).fill(init);
    arrays[name] = ndarray("float32", shape, data);
  }
  return arrays;
}

/** Normally distributed numbers with the standard deviation of BERT's initialization. */
export function normalNumbers(size: number, random: Random): Float32Array {
  const numbers = new Float32Array(size);
  for (let i = 0; i < size; i++) numbers[i] = random.normal() * standardDeviation;
  return numbers;
}
