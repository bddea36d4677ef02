/** One sample as a sequence of positions: the prompt with its picture, then its answers. */

/** A piece of a sample's sequence: tokens, or the picture. */
export type Piece = { readonly ids: readonly number[] } | "image";

/** One picture with what is said before the answer, and one or more answers to learn. */
export interface Sample {
  /** Which row of the batch's `features` is the sample's picture. */
  readonly image: number;
  /** What is given. */
  readonly prompt: readonly Piece[];
  /** What is learned. Answers share the picture and the prompt, and do not see each other. */
  readonly answers: readonly (readonly number[])[];
}

/** A sample laid out; all lists but the last two have an entry for each of its places. */
export interface Sequence {
  readonly image: number;
  readonly ids: readonly number[];
  readonly positions: readonly number[];
  /** 0 for the prompt, then the number of the answer, from 1. */
  readonly segments: readonly number[];
  readonly imagePlaces: readonly number[];
  /** The place that predicts each target, and the target. */
  readonly targets: readonly { readonly place: number; readonly id: number }[];
}

/** Each answer goes on from the end of the prompt as if it stood alone: its positions count from there. */
export function layOut({ image, prompt, answers }: Sample, tokensPerImage: number): Sequence {
  const ids: number[] = [];
  const imagePlaces: number[] = [];
  for (const piece of prompt) {
    if (piece === "image") {
      for (let i = 0; i < tokensPerImage; i++) imagePlaces.push(ids.push(0) - 1);
    } else {
      ids.push(...piece.ids);
    }
  }
  const start = ids.length;
  const positions = ids.map((_, i) => i);
  const segments = ids.map(() => 0);
  const targets: { place: number; id: number }[] = [];
  answers.forEach((answer, number) => {
    answer.forEach((id, i) => {
      // The place before a token predicts it; the last token predicts nothing and is left out.
      targets.push({ place: i === 0 ? start - 1 : ids.length - 1, id });
      if (i === answer.length - 1) return;
      ids.push(id);
      positions.push(start + i);
      segments.push(number + 1);
    });
  });
  return { image, ids, positions, segments, imagePlaces, targets };
}
