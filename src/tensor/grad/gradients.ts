/** Reverse-mode differentiation: walks the graph from a loss back to the parameters, and adds the nodes that compute gradients. */
import type { Node, Value } from "../graph.ts";
import { detached } from "../ops/elementwise.ts";
import { reshape, zerosOf } from "../ops/layout.ts";
import { reduceSum } from "../ops/reduce.ts";
import { formatShape, type Shape, sameShape } from "../shapes.ts";
import { rules } from "./rules.ts";

/**
 * Gradients of a scalar `loss` with respect to `parameters`, one value of the same shape for each.
 *
 * Only nodes between `parameters` and `loss` are differentiated; other weights cost nothing.
 *
 * @throws Error if the loss is not a float32 scalar, does not depend on one of the parameters, or an operator has no gradient rule
 */
export function gradients(loss: Value, parameters: readonly Value[]): Value[] {
  if (loss.rank !== 0 || loss.dtype !== "float32") throw new Error(`The loss must be a float32 scalar, found ${loss}`);
  const { graph } = loss;
  const nodes = [...graph.nodes];
  const dependent = dependentOn(parameters, nodes);
  const found = new Map<Value, Value>([[loss, graph.scalar(1)]]);

  for (const node of nodes.toReversed()) {
    if (!node.outputs.some((output) => found.has(output))) continue;
    if (!inputsOf(node).some((input) => dependent.has(input))) continue;
    graph.scope("gradient", () => differentiate(node, dependent, found));
  }
  return parameters.map((value) => {
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
    const gradient = sumTo(contribution, input.shape);
    const previous = found.get(input);
    found.set(input, previous ? previous.add(gradient) : gradient);
  });
}

/** The inputs of a node for differentiation: those of its custom gradient, if it has one. */
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
    throw new Error(`${node.op}: only the first output can be differentiated`);
  }
  return rule(node.op === "Split" ? splitGradients(node, [first, ...others]) : [first as Value], inputs, node);
}

/** Unused parts of a split have zero gradients. */
function splitGradients(node: Node, received: readonly (Value | undefined)[]): Value[] {
  return node.outputs.map((output, i) => received[i] ?? zerosOf(output.graph, output.shape));
}

/** Whether the loss depends on a value; some weights of a network may be unused. */
export function reaches(loss: Value, value: Value): boolean {
  return dependentOn([value], loss.graph.nodes).has(loss);
}

/** The given values and all that depend on them differentiably. Comparisons, indices and `detach` stop gradients. */
function dependentOn(values: readonly Value[], nodes: readonly Node[]): ReadonlySet<Value> {
  const dependent = new Set<Value>(values);
  for (const node of nodes) {
    if (node.op === detached) continue;
    if (inputsOf(node).some((input) => dependent.has(input))) {
      for (const output of node.outputs) if (isFloat(output)) dependent.add(output);
    }
  }
  return dependent;
}

/** Undoes broadcasting: sums `x` over the axes along which a value of `shape` was broadcast. */
function sumTo(x: Value, shape: Shape): Value {
  if (sameShape(x.shape, shape)) return x;
  const extra = x.rank - shape.length;
  const axes = x.shape.flatMap((dim, axis) => (axis < extra || (shape[axis - extra] === 1 && dim !== 1) ? [axis] : []));
  const sum = axes.length > 0 ? reduceSum(x, axes) : x;
  const result = extra > 0 ? reshape(sum, sum.shape.slice(extra)) : sum;
  if (!sameShape(result.shape, shape)) {
    throw new Error(
      `A gradient of shape ${formatShape(x.shape)} does not match its value of shape ${formatShape(shape)}`,
    );
  }
  return result;
}

function isFloat({ dtype }: Value): boolean {
  return dtype === "float32" || dtype === "float64";
}
