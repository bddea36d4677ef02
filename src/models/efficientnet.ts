/**
 * EfficientNet-Lite0 (Tan & Le, arXiv 1905.11946; the Lite variants have no squeeze-and-excitation and use ReLU6).
 * Weight names are those of `efficientnet-lite0-57934424.pth`.
 */
import { linear } from "../nn/layers.ts";
import type { Weights } from "../nn/weights.ts";
import type { Value } from "../tensor/graph.ts";
import { conv2d } from "../tensor/ops/convolution.ts";
import { clip } from "../tensor/ops/elementwise.ts";
import { reshape, transpose } from "../tensor/ops/layout.ts";
import { batchNorm } from "../tensor/ops/normalization.ts";
import { reduceMean } from "../tensor/ops/reduce.ts";

/** Feature width of a grid cell. */
export const efficientNetWidth = 1280;
/** Classes of ImageNet-1k, in the order of their WordNet ids. */
export const efficientNetClasses = 1000;
const batchNormEps = 1e-3;

/** Number of grid cells of a square image: one per 32 x 32 pixels, rounded up. */
export function efficientNetCells(imageSize: number): number {
  return Math.ceil(imageSize / 32) ** 2;
}

/** The stages of the network (Tan & Le, table 1). `stride` is that of the first block. */
const stages = [
  { repeats: 1, kernel: 3, stride: 1, expansion: 1, channels: 16 },
  { repeats: 2, kernel: 3, stride: 2, expansion: 6, channels: 24 },
  { repeats: 2, kernel: 5, stride: 2, expansion: 6, channels: 40 },
  { repeats: 3, kernel: 3, stride: 2, expansion: 6, channels: 80 },
  { repeats: 3, kernel: 5, stride: 1, expansion: 6, channels: 112 },
  { repeats: 4, kernel: 5, stride: 2, expansion: 6, channels: 192 },
  { repeats: 1, kernel: 3, stride: 1, expansion: 6, channels: 320 },
];

/** pixels [batch, 3, size, size] -> [batch, cells, 1280], cells in row-major order (7 x 7 at 224 pixels). */
export function efficientNetFeatures(w: Weights, pixels: Value): Value {
  let x = convolve(w, "_conv_stem", "_bn0", pixels, { out: 32, kernel: 3, stride: 2, activate: true });
  let index = 0;
  for (const { repeats, kernel, stride, expansion, channels } of stages) {
    for (let i = 0; i < repeats; i++) {
      const block = w.at("_blocks").at(index);
      x = x.graph.scope(`blocks.${index}`, () =>
        invertedResidual(block, x, { kernel, stride: i === 0 ? stride : 1, expansion, channels }),
      );
      index++;
    }
  }
  const head = convolve(w, "_conv_head", "_bn1", x, { out: efficientNetWidth, kernel: 1, activate: true });
  const cells = head.size(2) * head.size(3);
  return transpose(reshape(head, [head.dim(0), efficientNetWidth, cells]), [0, 2, 1]);
}

/** Logits of the ImageNet-1k classes: features [batch, cells, 1280] -> [batch, 1000]. */
export function efficientNetLogits(w: Weights, features: Value): Value {
  return linear(w.at("_fc"), reduceMean(features, [1], { keep: false }), efficientNetClasses);
}

interface Block {
  readonly kernel: number;
  readonly stride: number;
  readonly expansion: number;
  readonly channels: number;
}

/**
 * Inverted residual block (MobileNetV2, Sandler et al., arXiv 1801.04381): expand, depthwise convolution, project; with a residual connection
 * if the shape does not change. x [batch, c, h, w] -> [batch, channels, h / stride, w / stride].
 */
function invertedResidual(w: Weights, x: Value, { kernel, stride, expansion, channels }: Block): Value {
  const expandedChannels = x.size(1) * expansion;
  const expanded =
    expansion === 1 ? x : convolve(w, "_expand_conv", "_bn0", x, { out: expandedChannels, kernel: 1, activate: true });
  const depthwise = { out: expandedChannels, kernel, stride, groups: expandedChannels, activate: true };
  const filtered = convolve(w, "_depthwise_conv", "_bn1", expanded, depthwise);
  const projected = convolve(w, "_project_conv", "_bn2", filtered, { out: channels, kernel: 1 });
  return stride === 1 && x.dim(1) === channels ? x.add(projected) : projected;
}

interface Convolution {
  readonly out: number;
  readonly kernel: number;
  readonly stride?: number;
  readonly groups?: number;
  readonly activate?: boolean;
}

type Four = [Value, Value, Value, Value];

/** Convolution, batch norm with running statistics, optional ReLU6. The runtime folds the norm into the kernel. */
function convolve(w: Weights, name: string, norm: string, x: Value, options: Convolution): Value {
  const { out, kernel, stride = 1, groups = 1, activate = false } = options;
  const weight = w.at(name).get("weight", [out, x.size(1) / groups, kernel, kernel]);
  const pads = samePadding(x.size(2), x.size(3), kernel, stride);
  const statistic = (key: string) => w.at(norm).get(key, [out]);
  const [scale, bias, mean, variance] = ["weight", "bias", "running_mean", "running_var"].map(statistic) as Four;
  const y = batchNorm(
    conv2d(x, weight, undefined, { stride, groups, pads }),
    { scale, bias, mean, variance },
    batchNormEps,
  );
  return activate ? clip(y, 0, 6) : y;
}

/** TensorFlow's "same" padding: the output has ceil(size / stride) cells; an odd padding is larger at the bottom and right. */
function samePadding(height: number, width: number, kernel: number, stride: number): [number, number, number, number] {
  const total = (size: number) => Math.max((Math.ceil(size / stride) - 1) * stride + kernel - size, 0);
  const [vertical, horizontal] = [total(height), total(width)];
  const [top, left] = [Math.floor(vertical / 2), Math.floor(horizontal / 2)];
  return [top, left, vertical - top, horizontal - left];
}
