/** MiniGPT-4 7B at a quarter of its widths and depths, and what one step of its first stage computes. */
import { Random } from "../src/tensor/random.ts";

/** Dimensions under the names of a recipe (`encoder`, `qformer`) and of Hugging Face's `config.json` (`llm`). */
export interface Stage1Shapes {
  readonly encoder: {
    readonly image_size: number;
    readonly patch_size: number;
    readonly hidden_size: number;
    readonly num_hidden_layers: number;
    readonly num_attention_heads: number;
    readonly intermediate_size: number;
  };
  readonly qformer: {
    readonly num_query_tokens: number;
    readonly hidden_size: number;
    readonly num_hidden_layers: number;
    readonly num_attention_heads: number;
    readonly intermediate_size: number;
    readonly encoder_width: number;
    readonly cross_attention_frequency: number;
  };
  readonly llm: {
    readonly vocab_size: number;
    readonly hidden_size: number;
    readonly num_hidden_layers: number;
    readonly num_attention_heads: number;
    readonly intermediate_size: number;
  };
}

/** Heads keep their sizes (88, 64, 128); 39 blocks become 10, and 12 layers of the Q-Former 3. */
export const quarter: Stage1Shapes = {
  encoder: {
    image_size: 224,
    patch_size: 14,
    hidden_size: 352,
    num_hidden_layers: 10,
    num_attention_heads: 4,
    intermediate_size: 1536,
  },
  qformer: {
    num_query_tokens: 32,
    hidden_size: 192,
    num_hidden_layers: 3,
    num_attention_heads: 3,
    intermediate_size: 768,
    encoder_width: 352,
    cross_attention_frequency: 2,
  },
  llm: {
    vocab_size: 8000,
    hidden_size: 1024,
    num_hidden_layers: 8,
    num_attention_heads: 8,
    intermediate_size: 2752,
  },
};

/** MiniGPT-4 7B itself. */
export const original: Stage1Shapes = {
  encoder: {
    image_size: 224,
    patch_size: 14,
    hidden_size: 1408,
    num_hidden_layers: 39,
    num_attention_heads: 16,
    intermediate_size: 6144,
  },
  qformer: {
    num_query_tokens: 32,
    hidden_size: 768,
    num_hidden_layers: 12,
    num_attention_heads: 12,
    intermediate_size: 3072,
    encoder_width: 1408,
    cross_attention_frequency: 2,
  },
  llm: {
    vocab_size: 32000,
    hidden_size: 4096,
    num_hidden_layers: 32,
    num_attention_heads: 32,
    intermediate_size: 11008,
  },
};

/** Images of one step on one device, as MiniGPT-4's first stage has them. */
export const images = 64;

/**
 * How many of 4,250 Flickr8k captions, cleaned as the first stage does it, have 0, 1, 2, ... tokens of SmolLM2's
 * vocabulary, the newline that ends them counted and cut at 32.
 */
const captionLengths = [
  0, 0, 0, 0, 9, 29, 74, 200, 301, 310, 445, 414, 433, 444, 373, 298, 247, 158, 131, 119, 66, 64, 29, 31, 17, 19, 8, 8,
  7, 6, 3, 0, 7,
];

/** Captions of random tokens, as long as real ones. */
export function captions(vocabSize: number, count = images, seed = 1): number[][] {
  const random = new Random(seed);
  const lengths = captionLengths.flatMap((of, length) => new Array<number>(of).fill(length));
  return Array.from({ length: count }, () => {
    const length = lengths[random.below(lengths.length)] as number;
    // The ids below 3 are special tokens.
    return Array.from({ length }, () => 3 + random.below(vocabSize - 3));
  });
}

/** Weights that meet each token of a part once: those of its matrices. */
export function matrixWeights({ encoder, qformer, llm }: Stage1Shapes) {
  const cross = Math.ceil(qformer.num_hidden_layers / qformer.cross_attention_frequency);
  const [v, q, l] = [encoder.hidden_size, qformer.hidden_size, llm.hidden_size];
  return {
    encoder: encoder.num_hidden_layers * (4 * v * v + 2 * v * encoder.intermediate_size),
    /** Of the queries, and of the image tokens that they look at. */
    queries: qformer.num_hidden_layers * (4 * q * q + 2 * q * qformer.intermediate_size) + cross * 2 * q * q,
    looked: cross * 2 * q * v,
    projection: q * l,
    llm: llm.num_hidden_layers * (4 * l * l + 3 * l * llm.intermediate_size),
    head: l * llm.vocab_size,
  };
}

/**
 * Floating-point operations in matrix products of one step: forward, and backward through the language model to its
 * input and to the projection's weights.
 *
 * @param places of the language model, padding counted, in rows of `length`
 * @param scored places whose logits are computed
 */
export function operations(
  shapes: Stage1Shapes,
  count: number,
  { places, length, scored }: { readonly places: number; readonly length: number; readonly scored: number },
) {
  const { encoder, qformer, llm } = shapes;
  const weights = matrixWeights(shapes);
  const cells = 1 + (encoder.image_size / encoder.patch_size) ** 2;
  const queries = qformer.num_query_tokens;
  const patch = 3 * encoder.patch_size ** 2 * encoder.hidden_size;
  const seen = 2 * cells * encoder.hidden_size * encoder.num_hidden_layers;
  return {
    encoder: 2 * count * cells * (weights.encoder + patch + seen),
    qformer: 2 * count * (queries * weights.queries + cells * weights.looked),
    projection: 4 * count * queries * weights.projection,
    llm: 4 * (places * (weights.llm + 2 * length * llm.hidden_size * llm.num_hidden_layers) + scored * weights.head),
  };
}

/** How the parts of this model compare with each other, and those of the original. */
export function proportions(): string {
  const millions = (count: number) => (count < 1e9 ? `${(count / 1e6).toFixed(0)}M` : `${(count / 1e9).toFixed(1)}B`);
  const describe = (name: string, shapes: Stage1Shapes) => {
    const { encoder, queries, looked, llm, head } = matrixWeights(shapes);
    // A caption of 13 tokens behind a beginning of sequence and an image, of which the last predicts nothing.
    const length = shapes.qformer.num_query_tokens + 13;
    const work = operations(shapes, 1, { places: length, length, scored: 13 });
    const share = (part: number) => `${((100 * part) / work.llm).toFixed(1)}%`;
    return (
      `${name}: image encoder ${millions(encoder)} weights, Q-Former ${millions(queries + looked)}, language model ` +
      `${millions(llm + 2 * head)}; operations of a step, in parts of the language model's: image encoder ` +
      `${share(work.encoder)}, Q-Former ${share(work.qformer)}, projection ${share(work.projection)}`
    );
  };
  return `${describe("This model", quarter)}\n${describe("MiniGPT-4 7B", original)}`;
}
