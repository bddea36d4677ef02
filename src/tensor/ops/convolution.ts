/** Two-dimensional convolution and its gradients. Image sizes must be numbers; the batch may be symbolic. */
import { type Node, single, type Value } from "../graph.ts";
import { mulDims } from "../shapes.ts";
import { concat, padZeros, reshape } from "./layout.ts";
import { matmul } from "./matmul.ts";
import { reduceSum } from "./reduce.ts";

export interface ConvOptions {
  /** @default 1 */
  stride?: number;
  /** Zero padding in pixels: top, left, bottom, right. @default none */
  pads?: readonly [number, number, number, number];
  /** @default 1 */
  groups?: number;
}

/** x [batch, channels, height, width], weight [out, channels / groups, kernel, kernel], bias [out] -> [batch, out, h, w]. */
export function conv2d(x: Value, weight: Value, bias: Value | undefined, options: ConvOptions = {}): Value {
  const { stride = 1, pads = [0, 0, 0, 0], groups = 1 } = options;
  const [channels, height, width] = knownSizes(x, "image");
  const [channelsOfGroup, kernelHeight, kernelWidth] = knownSizes(weight, "weight");
  const out = weight.dim(0);
  if (channels !== channelsOfGroup * groups || typeof out !== "number" || out % groups !== 0) {
    throw new Error(
      `${x.graph.where()}conv2d of ${x} with ${weight} in ${groups} groups: the numbers of channels do not match`,
    );
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

/** The last three sizes of a value of rank 4. */
function knownSizes(value: Value, what: string): [number, number, number] {
  const [a, b, c] = value.shape.slice(1);
  if (value.rank !== 4 || typeof a !== "number" || typeof b !== "number" || typeof c !== "number") {
    throw new Error(
      `${value.graph.where()}conv2d: the ${what} ${value} must have four axes, the last three of numeric size`,
    );
  }
  return [a, b, c];
}

interface Geometry {
  readonly x: Value;
  readonly weight: Value;
  readonly stride: number;
  readonly pads: readonly [number, number, number, number];
  readonly groups: number;
  readonly kernel: readonly [number, number];
}

function geometry(node: Node): Geometry {
  const [x, weight] = node.inputs as [Value, Value];
  const { strides, pads, group, kernel_shape: kernel } = node.attributes;
  return {
    x,
    weight,
    stride: (strides as readonly number[])[0] ?? 1,
    pads: pads as Geometry["pads"],
    groups: group as number,
    kernel: kernel as Geometry["kernel"],
  };
}

/** The transposed convolution. Pixels at the bottom and right that the stride skipped become output padding. */
export function convInputGradient(g: Value, node: Node): Value {
  const { x, weight, stride, pads, groups, kernel } = geometry(node);
  const [top, left, bottom, right] = pads;
  const leftOver = (axis: number, k: number, padding: number) =>
    x.size(axis) - ((g.size(axis) - 1) * stride + k - padding);
  const attributes = {
    kernel_shape: kernel,
    strides: [stride, stride],
    pads,
    group: groups,
    output_padding: [leftOver(2, kernel[0], top + bottom), leftOver(3, kernel[1], left + right)],
  };
  return single(g.graph.node("ConvTranspose", [g, weight], [{ dtype: g.dtype, shape: x.shape }], { attributes }));
}

/** One matrix product per kernel position: the gradient times the image, shifted to that position. */
export function convWeightGradient(g: Value, node: Node): Value {
  const { x, weight, stride, pads, groups, kernel } = geometry(node);
  const [out, channelsOfGroup] = weight.shape as readonly number[];
  const [height, width] = [g.size(2), g.size(3)];
  const outOfGroup = (out as number) / groups;
  const [top, left, bottom, right] = pads;
  const padded = padZeros(padZeros(x, 2, top, bottom), 3, left, right);
  const gradient = reshape(g, [g.dim(0), groups, outOfGroup, mulDims(height, width)]);
  const positions: Value[] = [];
  for (let row = 0; row < kernel[0]; row++) {
    for (let column = 0; column < kernel[1]; column++) {
      const shifted = strided(padded, row, column, [height, width], stride);
      const image = reshape(shifted, [x.dim(0), groups, channelsOfGroup as number, mulDims(height, width)]);
      const product = reduceSum(matmul(gradient, image, { transB: true }), [0]);
      positions.push(reshape(product, [out as number, channelsOfGroup as number, 1]));
    }
  }
  return reshape(concat(positions, 2), weight.shape);
}

/** [batch, channels, h, w] -> [channels]. */
export function convBiasGradient(g: Value): Value {
  return reduceSum(g, [0, 2, 3], { keep: false });
}

/** Takes `size` rows and columns from (row, column) on, `stride` apart. */
function strided(x: Value, row: number, column: number, size: readonly [number, number], stride: number): Value {
  const { graph } = x;
  const end = (start: number, count: number) => start + (count - 1) * stride + 1;
  const bounds = [
    graph.integers([row, column]),
    graph.integers([end(row, size[0]), end(column, size[1])]),
    graph.integers([2, 3]),
    graph.integers([stride, stride]),
  ];
  return single(graph.node("Slice", [x, ...bounds], [{ dtype: x.dtype, shape: [x.dim(0), x.dim(1), ...size] }]));
}
