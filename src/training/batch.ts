/** Samples laid out side by side as the arrays of one training step. */
import { masked } from "../nn/attention.ts";
import { type NdArray, ndarray } from "../tensor/array.ts";

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

/** A sample's sequence: the prompt, then its answers one after the other. */
interface Row {
  readonly image: number;
  readonly ids: readonly number[];
  readonly positions: readonly number[];
  /** 0 for the prompt, then the number of the answer, from 1. */
  readonly segments: readonly number[];
  readonly imagePlaces: readonly number[];
  /** The place that predicts each target, and the target. */
  readonly targets: readonly { readonly place: number; readonly id: number }[];
}

/**
 * The feeds of `tokenLosses`. Each answer goes on from the end of the prompt as if it stood alone: its positions count from
 * there, and it sees only the prompt and itself. Rows are filled up on the right, where nothing looks.
 *
 * @param features [images, cells, width]
 * @throws Error if no sample has an answer
 */
export function batchArrays(
  samples: readonly Sample[],
  features: NdArray<"float32">,
  tokensPerImage: number,
): Record<string, NdArray> {
  const rows = samples.map((sample) => layOut(sample, tokensPerImage));
  const length = Math.max(...rows.map(({ ids }) => ids.length));
  const imageRows: number[] = [];
  const imagePlaces: number[] = [];
  const targetPlaces: number[] = [];
  const targetIds: number[] = [];
  rows.forEach((row, i) => {
    row.imagePlaces.forEach((place, token) => {
      imageRows.push(row.image * tokensPerImage + (token % tokensPerImage));
      imagePlaces.push(i * length + place);
    });
    for (const { place, id } of row.targets) {
      targetPlaces.push(i * length + place);
      targetIds.push(id);
    }
  });
  if (targetIds.length === 0) throw new Error("This batch has no answer to learn from: all its texts are empty");
  const filled = (values: (row: Row) => readonly number[]) =>
    rows.flatMap((row) => [...values(row), ...new Array<number>(length - row.ids.length).fill(0)]);
  return {
    features,
    ids: int64(
      [rows.length, length],
      filled(({ ids }) => ids),
    ),
    positions: int64(
      [rows.length, length],
      filled(({ positions }) => positions),
    ),
    mask: maskOf(rows, length),
    imageRows: int64([imageRows.length], imageRows),
    imagePlaces: int64([imagePlaces.length], imagePlaces),
    targetPlaces: int64([targetPlaces.length], targetPlaces),
    targetIds: int64([targetIds.length], targetIds),
  };
}

function layOut({ image, prompt, answers }: Sample, tokensPerImage: number): Row {
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

/** [rows, 1, length, length]: 0 where a place may look, `masked` elsewhere. */
function maskOf(rows: readonly Row[], length: number): NdArray<"float32"> {
  const mask = new Float32Array(rows.length * length * length).fill(masked);
  rows.forEach(({ segments }, row) => {
    for (let from = 0; from < length; from++) {
      const start = (row * length + from) * length;
      const own = segments[from];
      for (let to = 0; to <= from; to++) {
        const seen = own === undefined || segments[to] === 0 || segments[to] === own;
        if (seen) mask[start + to] = 0;
      }
    }
  });
  return ndarray("float32", [rows.length, 1, length, length], mask);
}

function int64(shape: readonly number[], values: readonly number[]): NdArray<"int64"> {
  return ndarray("int64", shape, BigInt64Array.from(values, BigInt));
}
