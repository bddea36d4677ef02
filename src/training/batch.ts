/** Samples laid out side by side as the arrays of one training step. */
import { type NdArray, ndarray } from "../tensor/array.ts";

/** A piece of a sample's sequence: tokens, or the picture. */
export type Piece = { readonly ids: readonly number[] } | "image";

/** One picture with what is said before the answer, and the answer. */
export interface Sample {
  /** Which row of the batch's `features` is the sample's picture; several samples may share one. */
  readonly image: number;
  /** What is given. */
  readonly prompt: readonly Piece[];
  /** What is learned. */
  readonly answer: readonly number[];
}

/** Features of some pictures, [images, cells, width]. */
export type Features = NdArray<"float32">;

/**
 * The feeds of `tokenLosses`. Sequences are filled up on the right, where a causal model never looks from the left, so no
 * mask is needed.
 *
 * @throws Error if no sample has an answer
 */
export function batchArrays(
  samples: readonly Sample[],
  features: Features,
  tokensPerImage: number,
): Record<string, NdArray> {
  const sequences = samples.map((sample) => layOut(sample, tokensPerImage));
  const length = Math.max(...sequences.map(({ ids }) => ids.length));
  const ids = new BigInt64Array(samples.length * length);
  const positions = BigInt64Array.from({ length: samples.length * length }, (_, i) => BigInt(i % length));
  const imageRows: number[] = [];
  const imagePlaces: number[] = [];
  const targetPlaces: number[] = [];
  const targetIds: number[] = [];
  sequences.forEach((sequence, row) => {
    const start = row * length;
    sequence.ids.forEach((id, i) => {
      ids[start + i] = BigInt(id);
    });
    sequence.imagePlaces.forEach((place, i) => {
      imageRows.push(sequence.image * tokensPerImage + (i % tokensPerImage));
      imagePlaces.push(start + place);
    });
    sequence.answer.forEach((id, i) => {
      // The position before a token predicts it.
      targetPlaces.push(start + sequence.answerStart + i - 1);
      targetIds.push(id);
    });
  });
  if (targetIds.length === 0) throw new Error("This batch has no answer to learn from: all its texts are empty");
  const indices = (values: readonly number[]) => ndarray("int64", [values.length], BigInt64Array.from(values, BigInt));
  const shape = [samples.length, length];
  return {
    features,
    ids: ndarray("int64", shape, ids),
    positions: ndarray("int64", shape, positions),
    imageRows: indices(imageRows),
    imagePlaces: indices(imagePlaces),
    targetPlaces: indices(targetPlaces),
    targetIds: indices(targetIds),
  };
}

function layOut({ image, prompt, answer }: Sample, tokensPerImage: number) {
  const ids: number[] = [];
  const imagePlaces: number[] = [];
  for (const piece of prompt) {
    if (piece === "image") {
      for (let i = 0; i < tokensPerImage; i++) {
        imagePlaces.push(ids.length);
        ids.push(0);
      }
    } else {
      ids.push(...piece.ids);
    }
  }
  const answerStart = ids.length;
  ids.push(...answer);
  return { image, ids, imagePlaces, answer, answerStart };
}
