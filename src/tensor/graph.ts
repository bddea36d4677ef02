/**
 * The graph language: a network is a function that adds nodes to a `Graph`, and each node is one ONNX operator.
 *
 * A `Value` is a typed edge whose shape is known when the graph is built, up to named sizes ("batch", "sequence").
 */
import { bytesOf, type DType, type NdArray, ndarray } from "./array.ts";
import { broadcastShapes, type Dim, formatShape, isDimName, type Shape } from "./shapes.ts";

/** An attribute of a node. Plain numbers are integers; floats are marked, as they are another type in ONNX. */
export type Attribute = number | string | readonly number[] | { readonly float: number };
export type Attributes = Readonly<Record<string, Attribute>>;

/** One operator with its inputs, attributes and outputs. An omitted optional input is `undefined`. */
export interface Node {
  readonly op: string;
  readonly domain: "" | "com.microsoft";
  readonly inputs: readonly (Value | undefined)[];
  readonly attributes: Attributes;
  readonly outputs: readonly Value[];
  /** Axes and sizes that ONNX takes as tensors, kept as plain values for the gradient rules. */
  readonly staticArguments: StaticArguments;
  /** Replaces the operator's gradient rule where this node is the last of several that are differentiated as one function. */
  readonly gradient?: CustomGradient;
}

/** The gradient of a function that several nodes compute together. Nodes between `inputs` and the output are not differentiated. */
export interface CustomGradient {
  readonly inputs: readonly Value[];
  /** Maps the gradient of the node's only output to the gradients of `inputs`. */
  rule(g: Value): readonly Value[];
}

interface StaticArguments {
  readonly axes?: readonly number[];
  readonly start?: Dim;
  readonly end?: Dim;
}

/** A constant of a graph. Weights are loaded one at a time when the model is written. */
export interface Initializer {
  readonly value: Value;
  /** Loads the bytes: little endian, row-major. */
  load(): Uint8Array | Promise<Uint8Array>;
  /** The file range with the same bytes. */
  readonly stored?: FileRange;
}

/** A range of bytes of a file. */
export interface FileRange {
  readonly path: string;
  readonly offset: number;
  readonly length: number;
}

interface OutputType {
  readonly dtype: DType;
  readonly shape: Shape;
}

interface NodeOptions {
  readonly attributes?: Attributes;
  readonly domain?: Node["domain"];
  readonly staticArguments?: StaticArguments;
  readonly gradient?: CustomGradient;
}

/** A network under construction: inputs, constants, and nodes in topological order. */
export class Graph {
  readonly nodes: Node[] = [];
  readonly inputs: Value[] = [];
  readonly initializers = new Map<string, Initializer>();
  private readonly names = new Set<string>();
  private readonly scopes: string[] = [];
  private readonly scalars = new Map<string, Value>();
  private readonly sharedValues = new Map<unknown, Value>();

  /**
   * Whether the model's constants stay in their files (`storage: "mapped"` of a session). Matrices are then multiplied one by one
   * in their stored form, because concatenating or packing would copy them.
   */
  readonly mapped: boolean;

  constructor({ mapped = false }: { readonly mapped?: boolean } = {}) {
    this.mapped = mapped;
  }

  /**
   * Declares an input, which is fed at each run. The fed arrays bind the named sizes in `shape`.
   * @throws Error if the name is already used, or a size is an expression
   */
  input(name: string, dtype: DType, shape: Shape): Value {
    for (const dim of shape) {
      if (typeof dim === "string" && !isDimName(dim)) {
        throw new Error(`Input "${name}": "${dim}" is not a valid size; use a number or a single name`);
      }
    }
    const value = new Value(this, this.claim(name), dtype, shape);
    this.inputs.push(value);
    return value;
  }

  /** Adds a constant array. */
  constant(array: NdArray, name = "constant"): Value {
    return this.weight(name, array.dtype, array.shape, () => bytesOf(array.data));
  }

  /** Returns the value that was created for `key`, or creates it: for values that several parts of the network share. */
  shared(key: unknown, make: () => Value): Value {
    let found = this.sharedValues.get(key);
    if (!found) {
      found = make();
      this.sharedValues.set(key, found);
    }
    return found;
  }

  /**
   * Adds a constant whose bytes are loaded when the model is written. A suffix makes `name` unique.
   * @param stored the file range with the same bytes, which the runtime may map instead
   */
  weight(name: string, dtype: DType, shape: readonly number[], load: Initializer["load"], stored?: FileRange): Value {
    const value = new Value(this, this.unique(name), dtype, shape);
    this.initializers.set(value.name, { value, load, stored });
    return value;
  }

  /** Returns a constant of rank 0; equal scalars share one constant. */
  scalar(value: number, dtype: "float32" | "int64" | "int32" = "float32"): Value {
    const key = `${dtype}:${value}`;
    let found = this.scalars.get(key);
    if (!found) {
      found = this.constant(scalarArray(value, dtype), "scalar");
      this.scalars.set(key, found);
    }
    return found;
  }

  /** Returns a one-dimensional int64 constant (axes, shapes, indices); equal ones share one constant. */
  integers(values: readonly number[]): Value {
    const key = values.join(",");
    let found = this.scalars.get(key);
    if (!found) {
      found = this.constant(ndarray("int64", [values.length], BigInt64Array.from(values, BigInt)), "integers");
      this.scalars.set(key, found);
    }
    return found;
  }

  /** Adds a node and returns its outputs. Shapes and types are not checked here: the functions in `ops/` do that. */
  node(
    op: string,
    inputs: readonly (Value | undefined)[],
    types: readonly OutputType[],
    options: NodeOptions = {},
  ): Value[] {
    for (const input of inputs) {
      if (input && input.graph !== this) throw new Error(`${op}: input "${input.name}" belongs to another graph`);
    }
    const outputs = types.map(({ dtype, shape }) => new Value(this, this.unique(this.label(op)), dtype, shape));
    const node: Node = {
      op,
      domain: options.domain ?? "",
      inputs,
      attributes: options.attributes ?? {},
      outputs,
      staticArguments: options.staticArguments ?? {},
      gradient: options.gradient,
    };
    for (const output of outputs) output.producer = node;
    this.nodes.push(node);
    return outputs;
  }

  /** Builds a part of the network under a name, which becomes part of error messages and node names ("layers.3.attention"). */
  scope<T>(name: string, build: () => T): T {
    this.scopes.push(name);
    try {
      return build();
    } finally {
      this.scopes.pop();
    }
  }

  /** The current scope as a prefix of error messages: "in encoder.layer.3: ", or "" at the top level. */
  where(): string {
    return this.scopes.length > 0 ? `in ${this.scopes.join(".")}: ` : "";
  }

  private label(op: string): string {
    return [...this.scopes, op].join(".");
  }

  private claim(name: string): string {
    if (this.names.has(name)) throw new Error(`The name "${name}" is already used in this graph`);
    this.names.add(name);
    return name;
  }

  private unique(name: string): string {
    let candidate = name;
    for (let i = 1; this.names.has(candidate); i++) candidate = `${name}#${i}`;
    return this.claim(candidate);
  }
}

function scalarArray(value: number, dtype: "float32" | "int64" | "int32"): NdArray {
  if (dtype === "int64") return ndarray("int64", [], BigInt64Array.of(BigInt(value)));
  if (dtype === "int32") return ndarray("int32", [], Int32Array.of(value));
  return ndarray("float32", [], Float32Array.of(value));
}

/** A typed edge of a graph. Arithmetic with values or numbers broadcasts as in NumPy. */
export class Value {
  readonly graph: Graph;
  readonly name: string;
  readonly dtype: DType;
  readonly shape: Shape;
  /** The node that computes this value; undefined for inputs and constants. */
  producer?: Node;

  constructor(graph: Graph, name: string, dtype: DType, shape: Shape) {
    this.graph = graph;
    this.name = name;
    this.dtype = dtype;
    this.shape = shape;
  }

  get rank(): number {
    return this.shape.length;
  }

  /** Size of an axis; negative axes count from the end. @throws RangeError if the axis is out of range */
  dim(axis: number): Dim {
    const dim = this.shape.at(axis);
    if (dim === undefined) throw new RangeError(`${this} has no axis ${axis}`);
    return dim;
  }

  /** Size of an axis, as a number. @throws RangeError if the size is symbolic or the axis is out of range */
  size(axis: number): number {
    const dim = this.dim(axis);
    if (typeof dim === "string")
      throw new RangeError(`${this}: the size of axis ${axis} is symbolic, expected a number`);
    return dim;
  }

  add(other: Value | number): Value {
    return elementwise("Add", this, other);
  }

  sub(other: Value | number): Value {
    return elementwise("Sub", this, other);
  }

  mul(other: Value | number): Value {
    return elementwise("Mul", this, other);
  }

  div(other: Value | number): Value {
    return elementwise("Div", this, other);
  }

  /** For messages: `"name" float32 [batch, 768]`. */
  toString(): string {
    return `"${this.name}" ${this.dtype} ${formatShape(this.shape)}`;
  }
}

/** Adds an operator of two inputs that broadcast. @param dtype type of the result @default the type of the inputs */
export function elementwise(op: string, a: Value, b: Value | number, dtype: DType = a.dtype): Value {
  const right = typeof b === "number" ? a.graph.scalar(b, scalarType(a)) : b;
  const shape = broadcastShapes(a.shape, right.shape);
  if (!shape || a.dtype !== right.dtype) {
    throw new Error(
      `${a.graph.where()}${op} of ${a} and ${right}: ${shape ? "the types differ" : "the shapes do not broadcast"}`,
    );
  }
  return single(a.graph.node(op, [a, right], [{ dtype, shape }]));
}

function scalarType(value: Value): "float32" | "int64" | "int32" {
  if (value.dtype === "float32" || value.dtype === "int64" || value.dtype === "int32") return value.dtype;
  throw new Error(`The second operand of ${value} must be a Value; numbers are supported for float32, int64 and int32`);
}

/** Returns the only output of a node. */
export function single(outputs: readonly Value[]): Value {
  const [output] = outputs;
  if (!output || outputs.length !== 1) throw new Error(`Expected one output, found ${outputs.length}`);
  return output;
}
