/** Pictures that are kept out of training. */
import type { Dataset, ImageTextPair, Part } from "./dataset.ts";

export interface Split {
  readonly train: Dataset;
  readonly heldOut: readonly ImageTextPair[];
}

/**
 * The last `count` pairs by name of the data set's last part are held out, the others are for training.
 * @throws Error if the last part has no more than `count` pairs
 */
export async function holdOut(dataset: Dataset, count: number): Promise<Split> {
  const last = dataset.parts.at(-1);
  if (count === 0 || !last) return { train: dataset, heldOut: [] };
  const { pairs } = await last.read();
  if (pairs.length <= count) {
    throw new Error(`${last.path} lists ${pairs.length} pictures, so ${count} cannot be held out of it`);
  }
  const heldOut = byName(pairs).slice(-count);
  const names = new Set(heldOut.map(({ name }) => name));
  const rest: Part = {
    path: last.path,
    async read() {
      const contents = await last.read();
      return { ...contents, pairs: contents.pairs.filter(({ name }) => !names.has(name)) };
    },
  };
  return { train: { ...dataset, parts: [...dataset.parts.slice(0, -1), rest] }, heldOut };
}

function byName(pairs: readonly ImageTextPair[]): ImageTextPair[] {
  return pairs.toSorted((a, b) => (a.name < b.name ? -1 : 1));
}
