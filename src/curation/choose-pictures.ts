/** A random choice of a data set's pictures. */
import type { Dataset, ImageTextPair, Problem } from "../data/dataset.ts";
import { Random } from "../tensor/random.ts";

export interface ChoiceOptions {
  /** All pictures are taken of a data set that has no more. */
  readonly count: number;
  readonly seed: number;
  /** Told of what the data set lists but cannot be used, and of parts that cannot be read. */
  readonly onProblem?: (problem: Problem) => void;
  /** Parts of the data set that are listed. */
  readonly onProgress?: (done: number, total: number) => void;
  readonly signal?: AbortSignal;
}

/**
 * The first `count` pictures of the data set in a random order, which depends only on the seed and the data set: of a larger count
 * the first ones are those of a smaller one. No more than some multiple of `count` is kept in memory.
 *
 * @throws Error if the data set lists no picture at all
 */
export async function choosePictures(
  { parts }: Dataset,
  { count, seed, onProblem, onProgress, signal }: ChoiceOptions,
): Promise<ImageTextPair[]> {
  const random = new Random(seed);
  let failed: Error | undefined;
  let chosen: { readonly place: number; readonly pair: ImageTextPair }[] = [];
  for (const [i, part] of parts.entries()) {
    signal?.throwIfAborted();
    try {
      const { pairs, problems } = await part.read();
      for (const problem of problems) onProblem?.(problem);
      // Every picture draws its place in the order, chosen or not; of equal places the one that is listed first is first.
      chosen = [...chosen, ...pairs.map((pair) => ({ place: random.uniform(), pair }))]
        .sort((a, b) => a.place - b.place)
        .slice(0, count);
    } catch (error) {
      failed ??= error as Error;
      onProblem?.({ name: part.path, reason: (error as Error).message });
    }
    onProgress?.(i + 1, parts.length);
  }
  if (chosen.length === 0) throw failed ?? new Error("The data set lists no pictures");
  return chosen.map(({ pair }) => pair);
}
