/**
 * The graph language: a network is a function that adds nodes to a `Graph`, and each node is one ONNX operator.
 *
 * A `Value` is a typed edge whose shape is known when the graph is built, up to named sizes ("batch", "sequence").
 */
import { bytesOf, type DType, type NdArray, ndarray } from "./array.ts";
import { broadcastShapes, type Dim, formatShape, isDimName, type Shape } from "./shapes.ts";

/** An attribute of a node: integers are plain numbers, floats are marked because ONNX tells them apart. */
export type Attribute = number | string | readonly number[] | { readonly float: number };
export type Attributes = Readonly<Record<string, Attribute>>;

/** One operator: what it reads, how it is set, what it makes. A missing optional input is `undefined`. */
export interface Node {
  readonly op: string;
  readonly domain: "" | "com.microsoft";
  readonly inputs: readonly (Value | undefined)[];
  readonly attributes: Attributes;
  readonly outputs: readonly Value[];
  /** Axes and sizes that ONNX takes as tensors, kept in the clear for the gradient. */
  readonly known: Known;
  /** Takes the place of the operator's rule where this node is the last of several that are differentiated as one. */
  readonly gradient: OwnGradient | undefined;
}

/** A function that several nodes compute together, as differentiation sees it: what lies between is not looked at. */
export interface OwnGradient {
  readonly inputs: readonly Value[];
  /** From the gradient of the node's only output to those of `inputs`. */
  rule(g: Value): readonly Value[];
}

interface Known {
  readonly axes?: readonly number[];
  readonly start?: Dim;
  readonly end?: Dim;
}

/** Constant data of a graph. Large weights are read only when the model is written, one at a time. */
export interface Initializer {
  readonly value: Value;
  /** The bytes, little endian, row-major. */
  load(): Uint8Array | Promise<Uint8Array>;
  /** Where the same bytes lie in a file. */
  readonly stored?: FileRange | undefined;
}

/** Bytes of a file. */
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
  readonly known?: Known;
  readonly gradient?: OwnGradient;
}

/** A network under construction: inputs, constants, and nodes in the order of their computation. */
export class Graph {
  readonly nodes: Node[] = [];
  readonly inputs: Value[] = [];
  readonly initializers = new Map<string, Initializer>();
  private readonly names = new Set<string>();
  private readonly scopes: string[] = [];
  private readonly scalars = new Map<string, Value>();
  private readonly sharedValues = new Map<unknown, Value>();

  /**
   * Whether the model's constants stay in the files that hold them (`storage: "mapped"` of a session): matrices are then
   * multiplied one by one as they are stored, as joining or packing them would copy them.
   */
  readonly mapped: boolean;

  constructor({ mapped = false }: { readonly mapped?: boolean } = {}) {
    this.mapped = mapped;
  }

  /** A value that is given at each run. Named sizes in `shape` are bound by the arrays that are fed. */
  input(name: string, dtype: DType, shape: Shape): Value {
    for (const dim of shape) {
      if (typeof dim === "string" && !isDimName(dim)) {
        throw new Error(`Input "${name}": "${dim}" is no name for a size; inputs take numbers or single names`);
      }
    }
    const value = new Value(this, this.claim(name), dtype, shape);
    this.inputs.push(value);
    return value;
  }

  /** A constant array, kept in the model. */
  constant(array: NdArray, name = "constant"): Value {
    return this.weight(name, array.dtype, array.shape, () => bytesOf(array.data));
  }

  /** A value that several parts of the network share: made once for each `key`. */
  shared(key: unknown, make: () => Value): Value {
    let found = this.sharedValues.get(key);
    if (!found) {
      found = make();
      this.sharedValues.set(key, found);
    }
    return found;
  }

  /**
   * A constant whose bytes are read when the model is written. `name` is made unique if it is taken.
   * @param stored where the same bytes lie in a file, which the engine may map instead
   */
  weight(
    name: string,
    dtype: DType,
    shape: readonly number[],
    load: Initializer["load"],
    stored?: FileRange | undefined,
  ): Value {
    const value = new Value(this, this.unique(name), dtype, shape);
    this.initializers.set(value.name, { value, load, stored });
    return value;
  }

  /** A constant of rank 0; equal scalars are one constant. */
  scalar(value: number, dtype: "float32" | "int64" | "int32" = "float32"): Value {
    const key = `${dtype}:${value}`;
    let found = this.scalars.get(key);
    if (!found) {
      found = this.constant(scalarArray(value, dtype), "scalar");
      this.scalars.set(key, found);
    }
    return found;
  }

  /** A one-dimensional int64 constant (axes, shapes, indices); equal ones are one constant. */
  integers(values: readonly number[]): Value {
    const key = values.join(",");
    let found = this.scalars.get(key);
    if (!found) {
      found = this.constant(ndarray("int64", [values.length], BigInt64Array.from(values, BigInt)), "integers");
      this.scalars.set(key, found);
    }
    return found;
  }

  /** Adds one operator and returns its outputs. Operators check their inputs before they call this. */
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
      known: options.known ?? {},
      gradient: options.gradient,
    };
    for (const output of outputs) output.producer = node;
    this.nodes.push(node);
    return outputs;
  }

  /** Builds a part of the network under a name, which errors and node names carry ("layer 3 / attention"). */
  scope<T>(name: string, build: () => T): T {
    this.scopes.push(name);
    try {
      return build();
    } finally {
      this.scopes.pop();
    }
  }

  /** Where the network is being built, for messages: "in encoder.layer.3: ", or nothing at the top. */
  where(): string {
    return this.scopes.length > 0 ? `in ${this.scopes.join(".")}: ` : "";
  }

  private label(op: string): string {
    return [...this.scopes, op].join(".");
  }

  private claim(name: string): string {
    if (this.names.has(name)) throw new Error(`The name "${name}" is taken in this graph`);
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

/** A typed edge of a graph. Arithmetic between values (or with a number) broadcasts as NumPy does. */
export class Value {
  readonly graph: Graph;
  readonly name: string;
  readonly dtype: DType;
  readonly shape: Shape;
  /** The node that makes this value; none for inputs and constants. */
  producer: Node | undefined;

  constructor(graph: Graph, name: string, dtype: DType, shape: Shape) {
    this.graph = graph;
    this.name = name;
    this.dtype = dtype;
    this.shape = shape;
  }

  get rank(): number {
    return this.shape.length;
  }

  /** Size along an axis; negative axes count from the end. @throws RangeError if there is no such axis. */
  dim(axis: number): Dim {
    const dim = this.shape.at(axis);
    if (dim === undefined) throw new RangeError(`${this} has no axis ${axis}`);
    return dim;
  }

  /** Size along an axis that is known when the graph is built. @throws RangeError if it is symbolic or there is no such axis */
  size(axis: number): number {
    const dim = this.dim(axis);
    if (typeof dim === "string") throw new RangeError(`${this}: the size of axis ${axis} is not known yet`);
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

/** An operator of two inputs that broadcast. `dtype` is the result's, where it is not the inputs' (comparisons). */
export function elementwise(op: string, a: Value, b: Value | number, dtype: DType = a.dtype): Value {
  const right = typeof b === "number" ? a.graph.scalar(b, scalarType(a)) : b;
  const shape = broadcastShapes(a.shape, right.shape);
  if (!shape || a.dtype !== right.dtype) {
    throw new Error(`${a.graph.where()}${op} of ${a} and ${right}: ${shape ? "the types" : "the shapes"} do not fit`);
  }
  return single(a.graph.node(op, [a, right], [{ dtype, shape }]));
}

function scalarType(value: Value): "float32" | "int64" | "int32" {
  if (value.dtype === "float32" || value.dtype === "int64" || value.dtype === "int32") return value.dtype;
  throw new Error(`${value} takes no plain number as its other operand`);
}

/** The only output of a node. */
export function single(outputs: readonly Value[]): Value {
  const [output] = outputs;
  if (!output || outputs.length !== 1) throw new Error(`Expected one output, found ${outputs.length}`);
  return output;
}
