/** One sample as a sequence of positions: the prompt with its image, then its answers. */
import { masked } from "../../nn/attention.ts";
import { type NdArray, ndarray } from "../../tensor/array.ts";

/** A piece of a sample's sequence: tokens, or the image. */
export type Piece = { readonly ids: readonly number[] } | "image";

/** One image with what is said before the answer, and one or more answers to learn. */
export interface Sample {
  /** Which row of the batch's `features` is the sample's image. */
  readonly image: number;
  /** What is given. */
  readonly prompt: readonly Piece[];
  /** What is learned. Answers share the image and the prompt, and do not see each other. */
  readonly answers: readonly (readonly number[])[];
}

/** A sample laid out; all lists but the last two have an entry for each of its places. */
interface Sequence {
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
function layOut({ image, prompt, answers }: Sample, tokensPerImage: number): Sequence {
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

// Sequences of different lengths put into rows of one length, so that little is spent on padding.

/** Where a sequence went. */
export interface Slot {
  readonly row: number;
  readonly start: number;
}

export interface Packing {
  /** In the order of the sequences. */
  readonly slots: readonly Slot[];
  readonly rows: number;
  /** Places of a row. */
  readonly length: number;
}

/** Longer rows, in multiples of the longest sequence, are not tried. */
const longestRow = 4;
/** A place costs as much again for attention in rows of this length; it only has to be about right. */
const attentionLength = 2048;

/** As many rows as cost least, filled evenly. */
export function pack(lengths: readonly number[]): Packing {
  const total = lengths.reduce((sum, length) => sum + length, 0);
  const fewest = Math.ceil(total / (longestRow * Math.max(...lengths)));
  const cost = ({ rows, length }: Packing) => rows * length * (1 + length / attentionLength);
  let best = fill(lengths, fewest);
  for (let rows = fewest + 1; rows <= lengths.length; rows++) {
    const other = fill(lengths, rows);
    if (cost(other) < cost(best)) best = other;
  }
  return best;
}

/** The longest first, each into the row that holds least so far (Graham, 1969, for jobs on machines). */
function fill(lengths: readonly number[], rows: number): Packing {
  const order = lengths.map((_, i) => i).sort((a, b) => (lengths[b] as number) - (lengths[a] as number) || a - b);
  const filled = new Array<number>(rows).fill(0);
  const slots: Slot[] = new Array(lengths.length);
  for (const i of order) {
    const row = filled.indexOf(Math.min(...filled));
    const start = filled[row] as number;
    slots[i] = { row, start };
    filled[row] = start + (lengths[i] as number);
  }
  return { slots, rows, length: Math.max(...filled) };
}

// Samples packed into the arrays of one training step.

/** Samples as rows of positions, without their images' features. */
export interface SequenceBatch {
  /** The feeds of `tokenLosses` but `features`. */
  readonly feeds: Readonly<Record<string, NdArray>>;
  /** Tokens to learn. */
  readonly targets: number;
  /** Tokens without padding, and with padding. */
  readonly tokens: number;
  readonly paddedTokens: number;
}

/**
 * Packs samples into rows. A place sees the earlier places of its own sample's prompt and answer, and nothing else; what
 * fills a row up is seen by nothing. Targets come in the order of the samples.
 */
export function batchSequences(samples: readonly Sample[], tokensPerImage: number): SequenceBatch {
  const sequences = samples.map((sample) => layOut(sample, tokensPerImage));
  const packing = pack(sequences.map(({ ids }) => ids.length));
  const { rows, length } = packing;
  const paddedTokens = rows * length;
  const ids = new BigInt64Array(paddedTokens);
  const positions = new BigInt64Array(paddedTokens);
  const imageRows: number[] = [];
  const imagePlaces: number[] = [];
  const targetPlaces: number[] = [];
  const targetIds: number[] = [];
  sequences.forEach((sequence, i) => {
    const { row, start } = packing.slots[i] as Slot;
    const first = row * length + start;
    sequence.ids.forEach((id, place) => {
      ids[first + place] = BigInt(id);
      positions[first + place] = BigInt(sequence.positions[place] as number);
    });
    sequence.imagePlaces.forEach((place, token) => {
      imageRows.push(sequence.image * tokensPerImage + (token % tokensPerImage));
      imagePlaces.push(first + place);
    });
    for (const { place, id } of sequence.targets) {
      targetPlaces.push(first + place);
      targetIds.push(id);
    }
  });
  return {
    targets: targetIds.length,
    tokens: sequences.reduce((sum, sequence) => sum + sequence.ids.length, 0),
    paddedTokens,
    feeds: {
      ids: ndarray("int64", [rows, length], ids),
      positions: ndarray("int64", [rows, length], positions),
      mask: maskOf(sequences, packing),
      imageRows: indices(imageRows),
      imagePlaces: indices(imagePlaces),
      targetPlaces: indices(targetPlaces),
      targetIds: indices(targetIds),
    },
  };
}

/** [rows, 1, length, length]: 0 where a place may look, `masked` elsewhere; a place that fills up sees itself. */
function maskOf(sequences: readonly Sequence[], { slots, rows, length }: Packing): NdArray<"float32"> {
  const mask = new Float32Array(rows * length * length).fill(masked);
  for (let place = 0; place < rows * length; place++) mask[place * length + (place % length)] = 0;
  sequences.forEach(({ segments }, i) => {
    const { row, start } = slots[i] as Slot;
    segments.forEach((own, from) => {
      const line = (row * length + start + from) * length + start;
      for (let to = 0; to < from; to++) {
        if (segments[to] === 0 || segments[to] === own) mask[line + to] = 0;
      }
    });
  });
  return ndarray("float32", [rows, 1, length, length], mask);
}

function indices(values: readonly number[]): NdArray<"int64"> {
  return ndarray("int64", [values.length], BigInt64Array.from(values, BigInt));
}
