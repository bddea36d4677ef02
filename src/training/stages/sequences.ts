/** Samples as token sequences: the prompt with its image, then the answers, packed into rows. */
import { masked } from "../../nn/attention.ts";
import { type NdArray, ndarray } from "../../tensor/array.ts";

/** A piece of a prompt: tokens, or the image. */
export type Piece = { readonly ids: readonly number[] } | "image";

/** An image with a prompt and one or more answers. */
export interface Sample {
  /** Which row of the batch's `features` is the sample's image. */
  readonly image: number;
  readonly prompt: readonly Piece[];
  /** The targets. Answers share the image and the prompt, and do not attend to each other. */
  readonly answers: readonly (readonly number[])[];
}

/** A sample as one sequence. `ids`, `positions` and `segments` have an entry for each of its tokens. */
interface Sequence {
  readonly image: number;
  readonly ids: readonly number[];
  readonly positions: readonly number[];
  /** 0 for the prompt, then the number of the answer, from 1. */
  readonly segments: readonly number[];
  readonly imageIndices: readonly number[];
  /** Each target, and the index of the token that predicts it. */
  readonly targets: readonly { readonly place: number; readonly id: number }[];
}

/** The positions of each answer count from the end of the prompt, as if it were the only one. */
function createSequence({ image, prompt, answers }: Sample, tokensPerImage: number): Sequence {
  const ids: number[] = [];
  const imageIndices: number[] = [];
  for (const piece of prompt) {
    if (piece === "image") {
      for (let i = 0; i < tokensPerImage; i++) imageIndices.push(ids.push(0) - 1);
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
      // Each token predicts the next one. The last one predicts nothing and is left out.
      targets.push({ place: i === 0 ? start - 1 : ids.length - 1, id });
      if (i === answer.length - 1) return;
      ids.push(id);
      positions.push(start + i);
      segments.push(number + 1);
    });
  });
  return { image, ids, positions, segments, imageIndices, targets };
}

/** Row and start of a sequence in a packing. */
export interface Slot {
  readonly row: number;
  readonly start: number;
}

/** Sequences of different lengths in rows of one length, with little padding. */
export interface Packing {
  /** In the order of the sequences. */
  readonly slots: readonly Slot[];
  readonly rows: number;
  /** Tokens of a row. */
  readonly length: number;
}

/** Length of the longest row that is tried, in multiples of the longest sequence. */
const maxRowFactor = 4;
/** Row length at which attention costs as much as the rest of the network; approximate. */
const attentionLength = 2048;

/** Chooses the number of rows with the least cost, and fills them evenly. */
export function pack(lengths: readonly number[]): Packing {
  const total = lengths.reduce((sum, length) => sum + length, 0);
  const fewest = Math.ceil(total / (maxRowFactor * Math.max(...lengths)));
  const cost = ({ rows, length }: Packing) => rows * length * (1 + length / attentionLength);
  let best = fill(lengths, fewest);
  for (let rows = fewest + 1; rows <= lengths.length; rows++) {
    const other = fill(lengths, rows);
    if (cost(other) < cost(best)) best = other;
  }
  return best;
}

/** Puts the longest sequences first, each into the shortest row so far (Graham, 1969). */
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

/** Samples as inputs of a graph, without their images' features. */
export interface SequenceBatch {
  /** The inputs of `tokenLosses` except for `features`. */
  readonly feeds: Readonly<Record<string, NdArray>>;
  /** Target tokens. */
  readonly targets: number;
  /** Tokens without padding, and with padding. */
  readonly tokens: number;
  readonly paddedTokens: number;
}

/**
 * Packs samples into rows. A token attends to the earlier tokens of its own sample's prompt and answer only, and padding only to
 * itself. Targets are in the order of the samples.
 */
export function batchSequences(samples: readonly Sample[], tokensPerImage: number): SequenceBatch {
  const sequences = samples.map((sample) => createSequence(sample, tokensPerImage));
  const packing = pack(sequences.map(({ ids }) => ids.length));
  const { rows, length } = packing;
  const paddedTokens = rows * length;
  const ids = new BigInt64Array(paddedTokens);
  const positions = new BigInt64Array(paddedTokens);
  const imageRows: number[] = [];
  const imageIndices: number[] = [];
  const targetIndices: number[] = [];
  const targetIds: number[] = [];
  sequences.forEach((sequence, i) => {
    const { row, start } = packing.slots[i] as Slot;
    const first = row * length + start;
    sequence.ids.forEach((id, place) => {
      ids[first + place] = BigInt(id);
      positions[first + place] = BigInt(sequence.positions[place] as number);
    });
    sequence.imageIndices.forEach((place, token) => {
      imageRows.push(sequence.image * tokensPerImage + (token % tokensPerImage));
      imageIndices.push(first + place);
    });
    for (const { place, id } of sequence.targets) {
      targetIndices.push(first + place);
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
      mask: attentionMask(sequences, packing),
      imageRows: indices(imageRows),
      imageIndices: indices(imageIndices),
      targetIndices: indices(targetIndices),
      targetIds: indices(targetIds),
    },
  };
}

/** [rows, 1, length, length]: 0 where a token attends, `masked` elsewhere; padding attends to itself. */
function attentionMask(sequences: readonly Sequence[], { slots, rows, length }: Packing): NdArray<"float32"> {
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
