/** Two-dimensional convolution. */
import { single, type Value } from "./graph.ts";

export interface ConvOptions {
  stride?: number;
  /** Zeros around the picture: top, left, bottom, right. */
  pads?: readonly [number, number, number, number];
  groups?: number;
}

/** x [batch, channels, height, width], weight [out, channels / groups, kernel, kernel], bias [out] -> [batch, out, h, w]. */
export function conv2d(x: Value, weight: Value, bias: Value | undefined, options: ConvOptions = {}): Value {
  const { stride = 1, pads = [0, 0, 0, 0], groups = 1 } = options;
  const [channels, height, width] = knownSizes(x, "picture");
  const [channelsOfGroup, kernelHeight, kernelWidth] = knownSizes(weight, "weight");
  const out = weight.dim(0);
  if (channels !== channelsOfGroup * groups || typeof out !== "number" || out % groups !== 0) {
    throw new Error(`${x.graph.where()}conv2d of ${x} with ${weight} in ${groups} groups: the channels do not fit`);
  }
  const [top, left, bottom, right] = pads;
  const size = (length: number, kernel: number, padding: number) =>
    Math.floor((length + padding - kernel) / stride) + 1;
  const shape = [x.dim(0), out, size(height, kernelHeight, top + bottom), size(width, kernelWidth, left + right)];
  const attributes = { kernel_shape: [kernelHeight, kernelWidth], strides: [stride, stride], pads, group: groups };
  return single(
    x.graph.node("Conv", bias ? [x, weight, bias] : [x, weight], [{ dtype: x.dtype, shape }], { attributes }),
  );
}

/** The sizes of the last three of four axes. */
function knownSizes(value: Value, what: string): [number, number, number] {
  const [a, b, c] = value.shape.slice(1);
  if (value.rank !== 4 || typeof a !== "number" || typeof b !== "number" || typeof c !== "number") {
    throw new Error(`${value.graph.where()}conv2d: the ${what} ${value} needs four axes, the last three of known size`);
  }
  return [a, b, c];
}
