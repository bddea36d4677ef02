/** Samples packed into the arrays of one training step. */
import { masked } from "../../nn/attention.ts";
import { type NdArray, ndarray } from "../../tensor/array.ts";
import { type Packing, pack, type Slot } from "./packing.ts";
import { layOut, type Sample, type Sequence } from "./sequence.ts";

/** Samples as rows of positions, without their pictures' features. */
export interface SequenceBatch {
  /** The feeds of `tokenLosses` but `features`. */
  readonly feeds: Readonly<Record<string, NdArray>>;
  /** Tokens to learn. */
  readonly targets: number;
  /** Places that are taken, and all places. */
  readonly tokens: number;
  readonly places: number;
}

/**
 * Packs samples into rows. A place sees the earlier places of its own sample's prompt and answer, and nothing else; what
 * fills a row up is seen by nothing. Targets come in the order of the samples.
 */
export function batchSequences(samples: readonly Sample[], tokensPerImage: number): SequenceBatch {
  const sequences = samples.map((sample) => layOut(sample, tokensPerImage));
  const packing = pack(sequences.map(({ ids }) => ids.length));
  const { rows, length } = packing;
  const places = rows * length;
  const ids = new BigInt64Array(places);
  const positions = new BigInt64Array(places);
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
    places,
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
