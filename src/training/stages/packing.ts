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
