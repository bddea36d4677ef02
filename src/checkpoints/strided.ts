/** Tensors that are views of a longer storage. */
import { sizeOf } from "../tensor/array.ts";

/** Where elements lie: element [i, j, ...] of the tensor is element `offset + i strides[0] + j strides[1] + ...`. */
export interface Layout {
  readonly shape: readonly number[];
  readonly strides: readonly number[];
  readonly offset: number;
}

/** Elements from the first to the last one that the layout touches. */
export function spanOf({ shape, strides }: Layout): number {
  if (shape.includes(0)) return 0;
  return shape.reduce((span, dim, axis) => span + (dim - 1) * (strides[axis] ?? 0), 1);
}

/** Whether the elements lie one after another in row-major order. */
export function isContiguous({ shape, strides }: Layout): boolean {
  let expected = 1;
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    const dim = shape[axis] as number;
    if (dim !== 1 && strides[axis] !== expected) return false;
    expected *= dim;
  }
  return true;
}

/** Copies a layout's elements of `size` bytes each into row-major order; `span` begins at the first element. */
export function gather(span: Uint8Array, layout: Layout, size: number): Uint8Array {
  const { shape, strides } = layout;
  const out = new Uint8Array(sizeOf(shape) * size);
  const index = shape.map(() => 0);
  let from = 0;
  for (let to = 0; to < out.length; to += size) {
    for (let byte = 0; byte < size; byte++) out[to + byte] = span[from * size + byte] as number;
    // The next index, like an odometer.
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      const stride = strides[axis] as number;
      from += stride;
      const next = (index[axis] as number) + 1;
      index[axis] = next;
      if (next < (shape[axis] as number)) break;
      from -= next * stride;
      index[axis] = 0;
    }
  }
  return out;
}
