/** Texts of different lengths as the inputs of a Q-Former's text side. */
import { type NdArray, ndarray } from "../tensor/array.ts";

/** Feeds of `QFormerText`: token ids and mask, int64 [texts, length]; shorter texts are filled up with [PAD]. */
export function textArrays(
  texts: readonly (readonly number[])[],
  padId: number,
): Record<"textIds" | "textMask", NdArray<"int64">> {
  const length = Math.max(...texts.map((ids) => ids.length));
  const shape = [texts.length, length];
  const ids = new BigInt64Array(texts.length * length).fill(BigInt(padId));
  const mask = new BigInt64Array(ids.length);
  texts.forEach((text, row) => {
    text.forEach((id, i) => {
      ids[row * length + i] = BigInt(id);
      mask[row * length + i] = 1n;
    });
  });
  return { textIds: ndarray("int64", shape, ids), textMask: ndarray("int64", shape, mask) };
}

/**
 * What is foretold where texts are generated: each token but the first, from the place before it; texts in their order.
 * Places are those of the flattened [texts * length]; both int64 [targets].
 */
export function generationTargets(
  texts: readonly (readonly number[])[],
  length: number,
): { readonly targetPlaces: NdArray<"int64">; readonly targetIds: NdArray<"int64"> } {
  const targets = texts.flatMap((ids, row) => ids.slice(1).map((id, i) => ({ place: row * length + i, id })));
  const column = (value: (target: { readonly place: number; readonly id: number }) => number) =>
    ndarray(
      "int64",
      [targets.length],
      BigInt64Array.from(targets, (target) => BigInt(value(target))),
    );
  return { targetPlaces: column(({ place }) => place), targetIds: column(({ id }) => id) };
}
