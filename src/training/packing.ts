/** Sequences of different lengths put into rows of one length, so that little is spent on padding. */

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

/** Row lengths that are tried, in multiples of the longest sequence: how well sequences fit changes with every few places. */
const multiples = Array.from({ length: 31 }, (_, i) => 1 + i / 10);
/** A place costs as much again for attention in rows of this length; it only has to be about right. */
const attentionLength = 2048;

/** Rows of the length that costs least: the longest sequence's or some more, each filled by first fit, longest first. */
export function pack(lengths: readonly number[]): Packing {
  const longest = Math.max(...lengths);
  const cost = ({ rows, length }: Packing) => rows * length * (1 + length / attentionLength);
  const [first, ...others] = multiples.map((multiple) => firstFit(lengths, Math.floor(longest * multiple)));
  return others.reduce((best, other) => (cost(other) < cost(best) ? other : best), first as Packing);
}

function firstFit(lengths: readonly number[], capacity: number): Packing {
  const order = lengths.map((_, i) => i).sort((a, b) => (lengths[b] as number) - (lengths[a] as number) || a - b);
  const filled: number[] = [];
  const slots: Slot[] = new Array(lengths.length);
  for (const i of order) {
    const length = lengths[i] as number;
    const found = filled.findIndex((used) => used + length <= capacity);
    const row = found < 0 ? filled.push(0) - 1 : found;
    slots[i] = { row, start: filled[row] as number };
    filled[row] = (filled[row] as number) + length;
  }
  return { slots, rows: filled.length, length: Math.max(...filled) };
}
