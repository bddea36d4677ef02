/**
 * Writes a graph as an ONNX model: the protobuf messages of onnx.proto, field by field.
 *
 * Only nodes that the outputs depend on are written. Large constants go to a second file, because protobuf messages are limited to 2 GB
 * and because ONNX Runtime maps such a file into memory instead of copying it.
 */
import { BinaryWriter } from "@bufbuild/protobuf/wire";
import { bytesPerElement, onnxType, sizeOf } from "../tensor/array.ts";
import type { Attribute, FileRange, Graph, Initializer, Node, Value } from "../tensor/graph.ts";
import type { Shape } from "../tensor/shapes.ts";

/** Minimum size in bytes of constants that are stored outside of the model. */
const externalFrom = 4096;
const pageSize = 4096;
/** Versions that both ONNX Runtime 1.30 and its browser build support. */
const irVersion = 10;
const opset = 21;

const lengthDelimited = 2;
const varint = 0;
const fixed32 = 5;

/** Storage of a model's large constants: a second file next to it, or memory. */
export interface ExternalData {
  /**
   * Stores a constant, unless its bytes are already stored.
   * @param stored the file range with the same bytes
   * @returns undefined if the constant should be stored inside the model
   */
  place(name: string, load: () => Promise<Uint8Array>, stored?: FileRange): Promise<ExternalRange | undefined>;
}

/** A range of bytes in a file of constants. */
export interface ExternalRange {
  /** Path of the file, relative to the model. */
  readonly location: string;
  readonly offset: number;
  readonly length: number;
}

/** Outputs that are computed only in runs in which `condition` is true, and are empty otherwise. */
export interface ConditionalOutputs {
  /** An input of the graph: a bool scalar. */
  readonly condition: Value;
  /** Values of numeric shapes. */
  readonly outputs: Readonly<Record<string, Value>>;
}

/**
 * Writes the ONNX model that computes `outputs`, and returns its bytes. Weights are loaded one at a time.
 * @param external storage of large constants @default inside the model
 * @param conditional additional outputs, computed by an If node
 * @throws Error if an output has the name of a value of the graph
 */
export async function writeModel(
  graph: Graph,
  outputs: Readonly<Record<string, Value>>,
  external?: ExternalData,
  conditional?: ConditionalOutputs,
): Promise<Uint8Array> {
  const { nodes } = reachable(graph, Object.values(outputs));
  const always = new Set(nodes);
  const all = reachable(graph, [...Object.values(outputs), ...Object.values(conditional?.outputs ?? {})]);
  const { initializers } = all;
  checkNames(graph, all.nodes, initializers, [...Object.keys(outputs), ...Object.keys(conditional?.outputs ?? {})]);
  const named = namedByOutput(nodes, outputs);
  const nameOf = (value: Value) => named.get(value) ?? value.name;
  const body = new BinaryWriter();
  for (const node of nodes) {
    const inputs = node.inputs.map((input) => (input ? nameOf(input) : ""));
    message(body, 1, (w) => writeNode(w, node, inputs, node.outputs.map(nameOf)));
  }
  for (const [name, value] of Object.entries(outputs)) {
    if (named.get(value) !== name) message(body, 1, (w) => writeNode(w, identity, [nameOf(value)], [name]));
  }
  if (conditional) {
    const inner = all.nodes.filter((node) => !always.has(node));
    message(body, 1, (w) => writeConditional(w, conditional, inner, nameOf));
  }
  body.tag(2, lengthDelimited).string("minigpt4");
  for (const initializer of initializers) {
    const { value } = initializer;
    const load = () => loadChecked(initializer);
    const isExternal = external && expectedBytes(value) >= externalFrom;
    const range = isExternal ? await external.place(value.name, load, storedRange(initializer)) : undefined;
    const data = range ?? (await load());
    message(body, 5, (w) => writeInitializer(w, value, data));
  }
  for (const input of graph.inputs) message(body, 11, (w) => writeValueInfo(w, input.name, input));
  for (const [name, value] of Object.entries({ ...outputs, ...conditional?.outputs })) {
    message(body, 12, (w) => writeValueInfo(w, name, value));
  }

  const model = new BinaryWriter();
  model.tag(1, varint).int64(irVersion);
  model.tag(2, lengthDelimited).string("minigpt4");
  model.tag(7, lengthDelimited).bytes(body.finish());
  for (const [domain, version] of [["", opset] as const, ["com.microsoft", 1] as const]) {
    message(model, 8, (w) => {
      w.tag(1, lengthDelimited).string(domain);
      w.tag(2, varint).int64(version);
    });
  }
  return model.finish();
}

function checkNames(
  graph: Graph,
  nodes: readonly Node[],
  initializers: readonly Initializer[],
  outputs: string[],
): void {
  const inside = [...graph.inputs, ...initializers.map(({ value }) => value), ...nodes.flatMap((node) => node.outputs)];
  const taken = new Set(inside.map(({ name }) => name));
  const clash = outputs.find((name) => taken.has(name));
  if (clash !== undefined) throw new Error(`Output "${clash}" has the name of another value of the graph; rename it`);
}

/**
 * Names of computed values that are outputs, so that the outputs need no copy. Inputs and constants, and further outputs of the same value,
 * are copied instead.
 */
function namedByOutput(nodes: readonly Node[], outputs: Readonly<Record<string, Value>>): Map<Value, string> {
  const computed = new Set(nodes.flatMap((node) => node.outputs));
  const named = new Map<Value, string>();
  for (const [name, value] of Object.entries(outputs)) {
    if (computed.has(value) && !named.has(value)) named.set(value, name);
  }
  return named;
}

/** The nodes and constants that the outputs depend on, in topological order. */
function reachable(graph: Graph, outputs: readonly Value[]): { nodes: Node[]; initializers: Initializer[] } {
  const needed = new Set<Value>(outputs);
  const nodes: Node[] = [];
  for (const node of graph.nodes.toReversed()) {
    if (!node.outputs.some((output) => needed.has(output))) continue;
    nodes.push(node);
    for (const input of node.inputs) if (input) needed.add(input);
  }
  const initializers = [...graph.initializers.values()].filter(({ value }) => needed.has(value));
  return { nodes: nodes.reverse(), initializers };
}

/** Bytes of the large constants of the model that computes `outputs`, as stored outside of it. */
export function externalBytes(graph: Graph, outputs: readonly Value[]): number {
  const sizes = reachable(graph, outputs).initializers.map(({ value }) => expectedBytes(value));
  return sizes.filter((size) => size >= externalFrom).reduce((end, size) => pageAfter(end) + size, 0);
}

/** Whether most of the large constants of the model that computes `outputs` are stored in files with the same bytes. */
export function isMostlyStored(graph: Graph, outputs: readonly Value[]): boolean {
  let [stored, all] = [0, 0];
  for (const initializer of reachable(graph, outputs).initializers) {
    const size = expectedBytes(initializer.value);
    if (size < externalFrom) continue;
    all += size;
    if (storedRange(initializer)) stored += size;
  }
  return stored > all / 2;
}

/** Allocates memory for the large constants of the model that computes `outputs`. */
export function constantsInMemory(
  graph: Graph,
  outputs: readonly Value[],
  location: string,
): ExternalData & Pick<ExternalRange, "location"> & { readonly data: Uint8Array<ArrayBuffer> } {
  const data = new Uint8Array(externalBytes(graph, outputs));
  let end = 0;
  return {
    location,
    data,
    async place(_, load) {
      const bytes = await load();
      const range = { location, offset: end, length: bytes.byteLength };
      data.set(bytes, end);
      end = pageAfter(end + bytes.byteLength);
      return range;
    },
  };
}

/** The first page boundary from `offset` on. Constants start on pages, so that they can be mapped. */
export function pageAfter(offset: number): number {
  return Math.ceil(offset / pageSize) * pageSize;
}

function expectedBytes(value: Value): number {
  return sizeOf(value.shape as readonly number[]) * bytesPerElement(value.dtype);
}

/** The file range of a constant, if its size and alignment allow to use it in place. */
function storedRange({ value, stored }: Initializer): FileRange | undefined {
  return stored?.length === expectedBytes(value) && stored.offset % bytesPerElement(value.dtype) === 0
    ? stored
    : undefined;
}

async function loadChecked({ value, load }: Initializer): Promise<Uint8Array> {
  const bytes = await load();
  if (bytes.byteLength !== expectedBytes(value)) {
    throw new Error(`Constant ${value} has ${bytes.byteLength} bytes, expected ${expectedBytes(value)}`);
  }
  return bytes;
}

function message(writer: BinaryWriter, field: number, write: (writer: BinaryWriter) => void): void {
  writer.tag(field, lengthDelimited).fork();
  write(writer);
  writer.join();
}

/** Copies a value to another name. */
const identity: NodeKind = { op: "Identity", domain: "", attributes: {} };

type NodeKind = Pick<Node, "op" | "domain" | "attributes">;

function writeNode(writer: BinaryWriter, node: NodeKind, inputs: readonly string[], outputs: readonly string[]): void {
  for (const input of inputs) writer.tag(1, lengthDelimited).string(input);
  for (const output of outputs) writer.tag(2, lengthDelimited).string(output);
  writer.tag(3, lengthDelimited).string(outputs[0] ?? node.op);
  writer.tag(4, lengthDelimited).string(node.op);
  for (const [name, attribute] of Object.entries(node.attributes)) {
    message(writer, 5, (w) => writeAttribute(w, name, attribute));
  }
  if (node.domain !== "") writer.tag(7, lengthDelimited).string(node.domain);
}

/** Writes an If node: one branch contains `nodes`, the other returns an empty array for each output. */
function writeConditional(
  writer: BinaryWriter,
  { condition, outputs }: ConditionalOutputs,
  nodes: readonly Node[],
  nameOf: (value: Value) => string,
): void {
  const entries = Object.entries(outputs);
  writer.tag(1, lengthDelimited).string(condition.name);
  for (const [name] of entries) writer.tag(2, lengthDelimited).string(name);
  writer.tag(3, lengthDelimited).string("If");
  writer.tag(4, lengthDelimited).string("If");
  const branch = (name: string, write: (graph: BinaryWriter) => void) =>
    message(writer, 5, (w) => {
      w.tag(1, lengthDelimited).string(name);
      message(w, 6, (graph) => {
        write(graph);
        graph.tag(2, lengthDelimited).string(name);
      });
      w.tag(20, varint).int32(5);
    });
  branch("then_branch", (graph) => {
    for (const node of nodes) {
      const inputs = node.inputs.map((input) => (input ? nameOf(input) : ""));
      message(graph, 1, (w) => writeNode(w, node, inputs, node.outputs.map(nameOf)));
    }
    for (const [name, value] of entries) {
      const output = `then:${name}`;
      message(graph, 1, (w) => writeNode(w, identity, [nameOf(value)], [output]));
      message(graph, 12, (w) => writeValueInfo(w, output, value));
    }
  });
  branch("else_branch", (graph) => {
    for (const [name, { dtype, shape }] of entries) {
      const empty = shape.map(() => 0);
      const output = `else:${name}`;
      const bytes = new Uint8Array(empty.length === 0 ? bytesPerElement(dtype) : 0);
      message(graph, 1, (w) => writeNode(w, identity, [`empty:${name}`], [output]));
      message(graph, 5, (w) => writeInitializer(w, { name: `empty:${name}`, dtype, shape: empty }, bytes));
      message(graph, 12, (w) => writeValueInfo(w, output, { dtype, shape: empty }));
    }
  });
}

/** AttributeProto: the field of the value, and the field `type` (20): FLOAT 1, INT 2, STRING 3, INTS 7. */
function writeAttribute(writer: BinaryWriter, name: string, attribute: Attribute): void {
  writer.tag(1, lengthDelimited).string(name);
  const type = (number: number) => writer.tag(20, varint).int32(number);
  if (typeof attribute === "number") {
    writer.tag(3, varint).int64(attribute);
    type(2);
  } else if (typeof attribute === "string") {
    writer.tag(4, lengthDelimited).string(attribute);
    type(3);
  } else if ("float" in attribute) {
    writer.tag(2, fixed32).float(attribute.float);
    type(1);
  } else {
    for (const integer of attribute) writer.tag(8, varint).int64(integer);
    type(7);
  }
}

/** TensorProto, with its bytes or their range in the file of constants. */
function writeInitializer(
  writer: BinaryWriter,
  value: Pick<Value, "name" | "dtype" | "shape">,
  data: Uint8Array | ExternalRange,
): void {
  for (const dim of value.shape) writer.tag(1, varint).int64(dim);
  writer.tag(2, varint).int32(onnxType(value.dtype));
  writer.tag(8, lengthDelimited).string(value.name);
  if (data instanceof Uint8Array) {
    writer.tag(9, lengthDelimited).bytes(data);
    return;
  }
  for (const [key, entry] of Object.entries(data)) {
    message(writer, 13, (w) => {
      w.tag(1, lengthDelimited).string(key);
      w.tag(2, lengthDelimited).string(`${entry}`);
    });
  }
  writer.tag(14, varint).int32(1);
}

function writeValueInfo(writer: BinaryWriter, name: string, value: { dtype: Value["dtype"]; shape: Shape }): void {
  writer.tag(1, lengthDelimited).string(name);
  message(writer, 2, (type) => {
    message(type, 1, (tensor) => {
      tensor.tag(1, varint).int32(onnxType(value.dtype));
      message(tensor, 2, (shape) => {
        for (const dim of value.shape) {
          message(shape, 1, (w) => {
            if (typeof dim === "number") w.tag(1, varint).int64(dim);
            else w.tag(2, lengthDelimited).string(dim);
          });
        }
      });
    });
  });
}
