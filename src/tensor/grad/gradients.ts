/** Reverse-mode differentiation: a walk over the graph from a loss back to what is trained, which adds nodes. */

import type { Node, Value } from "../graph.ts";
import { detached } from "../ops/elementwise.ts";
import { reshape, zerosOf } from "../ops/layout.ts";
import { reduceSum } from "../ops/reduce.ts";
import { formatShape, type Shape, sameShape } from "../shapes.ts";
import { rules } from "./rules.ts";

/**
 * Gradients of a scalar `loss` with respect to `wanted`, one value of the same shape for each.
 *
 * Only nodes between `wanted` and `loss` are differentiated; a weight that is not wanted costs nothing.
 *
 * @throws Error if the loss is no float32 scalar, does not depend on a wanted value, or an operator has no rule
 */
export function gradients(loss: Value, wanted: readonly Value[]): Value[] {
  if (loss.rank !== 0 || loss.dtype !== "float32") throw new Error(`The loss ${loss} should be a float32 scalar`);
  const { graph } = loss;
  const nodes = [...graph.nodes];
  const dependent = dependentOn(wanted, nodes);
  const found = new Map<Value, Value>([[loss, graph.scalar(1)]]);

  for (const node of nodes.toReversed()) {
    if (!node.outputs.some((output) => found.has(output))) continue;
    if (!inputsOf(node).some((input) => dependent.has(input))) continue;
    graph.scope("gradient", () => differentiate(node, dependent, found));
  }
  return wanted.map((value) => {
    const gradient = found.get(value);
    if (!gradient) throw new Error(`The loss ${loss} does not depend on ${value}`);
    return gradient;
  });
}

function differentiate(node: Node, dependent: ReadonlySet<Value>, found: Map<Value, Value>): void {
  const inputs = inputsOf(node);
  const results = inputGradients(node, inputs, found);
  inputs.forEach((input, i) => {
    const contribution = results[i];
    if (!dependent.has(input)) return;
    if (!contribution) throw new Error(`${node.op} cannot be differentiated with respect to ${input}`);
    const fitting = sumTo(contribution, input.shape);
    const before = found.get(input);
    found.set(input, before ? before.add(fitting) : fitting);
  });
}

/** What a node reads in the eyes of differentiation. */
function inputsOf(node: Node): readonly Value[] {
  return node.gradient?.inputs ?? node.inputs.filter((input) => input !== undefined);
}

function inputGradients(
  node: Node,
  inputs: readonly Value[],
  found: ReadonlyMap<Value, Value>,
): readonly (Value | undefined)[] {
  const [first, ...others] = node.outputs.map((output) => found.get(output));
  if (node.gradient) return node.gradient.rule(first as Value);
  const rule = rules[node.op];
  if (!rule) throw new Error(`${node.op} has no gradient rule (needed for ${node.outputs[0]})`);
  if (others.some((gradient) => gradient) && node.op !== "Split") {
    throw new Error(`${node.op}: only its first output can be differentiated`);
  }
  return rule(node.op === "Split" ? splitGradients(node, [first, ...others]) : [first as Value], inputs, node);
}

/** Parts of a split that nothing uses have a gradient of zeros. */
function splitGradients(node: Node, received: readonly (Value | undefined)[]): Value[] {
  return node.outputs.map((output, i) => received[i] ?? zerosOf(output.graph, output.shape));
}

/** Whether a gradient of the loss reaches a value: some weights of a network may have no part in it. */
export function reaches(loss: Value, value: Value): boolean {
  return dependentOn([value], loss.graph.nodes).has(loss);
}

/** The wanted values and all that is computed from them; a comparison, an index or `detach` ends the way of a gradient. */
function dependentOn(wanted: readonly Value[], nodes: readonly Node[]): ReadonlySet<Value> {
  const dependent = new Set<Value>(wanted);
  for (const node of nodes) {
    if (node.op === detached) continue;
    if (inputsOf(node).some((input) => dependent.has(input))) {
      for (const output of node.outputs) if (isReal(output)) dependent.add(output);
    }
  }
  return dependent;
}

/** Undoes broadcasting: sums over the axes along which a value of `shape` was repeated to give `x`. */
function sumTo(x: Value, shape: Shape): Value {
  if (sameShape(x.shape, shape)) return x;
  const extra = x.rank - shape.length;
  const axes = x.shape.flatMap((dim, axis) => (axis < extra || (shape[axis - extra] === 1 && dim !== 1) ? [axis] : []));
  const sum = axes.length > 0 ? reduceSum(x, axes) : x;
  const result = extra > 0 ? reshape(sum, sum.shape.slice(extra)) : sum;
  if (!sameShape(result.shape, shape)) {
    throw new Error(
      `A gradient of shape ${formatShape(x.shape)} does not fit its value of shape ${formatShape(shape)}`,
    );
  }
  return result;
}

function isReal({ dtype }: Value): boolean {
  return dtype === "float32" || dtype === "float64";
}
