/** Normalization layers as fused operators, which also return the statistics that their gradients need. */
import { single, type Value } from "../graph.ts";
import type { Shape } from "../shapes.ts";

function checkParameter(op: string, x: Value, parameter: Value): void {
  if (parameter.rank !== 1 || parameter.dim(0) !== x.dim(-1)) {
    throw new Error(
      `${x.graph.where()}${op} of ${x}: expected a parameter of shape [${x.dim(-1)}], found ${parameter}`,
    );
  }
}

const statistics = (x: Value): Shape => [...x.shape.slice(0, -1), 1];

/** (x - mean) / sqrt(variance + eps) * scale + bias over the last axis. */
export function layerNorm(x: Value, scale: Value, bias: Value, eps: number): Value {
  checkParameter("layerNorm", x, scale);
  checkParameter("layerNorm", x, bias);
  const types = [x.shape, statistics(x), statistics(x)].map((shape) => ({ dtype: x.dtype, shape }));
  const attributes = { axis: -1, epsilon: { float: eps } };
  const [y] = x.graph.node("LayerNormalization", [x, scale, bias], types, { attributes });
  return y as Value;
}

/** x / sqrt(mean(x^2) + eps) * scale over the last axis (RMS norm). */
export function rmsNorm(x: Value, scale: Value, eps: number): Value {
  checkParameter("rmsNorm", x, scale);
  const types = [x.shape, statistics(x)].map((shape) => ({ dtype: x.dtype, shape }));
  const attributes = { axis: -1, epsilon: { float: eps }, stash_type: 1 };
  const [y] = x.graph.node("SimplifiedLayerNormalization", [x, scale], types, { attributes });
  return y as Value;
}

/** Parameters and running statistics of batch normalization, [channels] each. */
export interface ChannelStatistics {
  readonly scale: Value;
  readonly bias: Value;
  readonly mean: Value;
  readonly variance: Value;
}

/** (x - mean) / sqrt(variance + eps) * scale + bias for each channel (axis 1) of x, with running statistics (inference mode). */
export function batchNorm(x: Value, { scale, bias, mean, variance }: ChannelStatistics, eps: number): Value {
  for (const parameter of [scale, bias, mean, variance]) {
    if (parameter.rank !== 1 || parameter.dim(0) !== x.dim(1)) {
      throw new Error(
        `${x.graph.where()}batchNorm of ${x}: expected parameters of shape [${x.dim(1)}], found ${parameter}`,
      );
    }
  }
  const attributes = { epsilon: { float: eps } };
  const type = { dtype: x.dtype, shape: x.shape };
  return single(x.graph.node("BatchNormalization", [x, scale, bias, mean, variance], [type], { attributes }));
}
