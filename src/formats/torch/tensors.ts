/** Interprets PyTorch's pickles: storages (persistent ids), and tensors that are rebuilt from them. */

import { quote } from "../../files/errors.ts";
import { type DType, sizeOf } from "../../tensor/array.ts";
import { countElements, maxDimensions } from "../checkpoint.ts";
import { Callable, type Environment, Inert } from "./pickle.ts";

/** Positions of elements in a storage: element [i, j, ...] of the tensor is `offset + i strides[0] + j strides[1] + ...`. */
export interface Layout {
  readonly shape: readonly number[];
  readonly strides: readonly number[];
  readonly offset: number;
}

/** Elements from the first to the last one that the layout touches. */
export function countSpan({ shape, strides }: Layout): number {
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

/** A contiguous array of elements, stored in the file outside the pickle. */
export interface Storage {
  readonly key: string;
  readonly dtype: DType;
  readonly elements: number;
}

/** A view of a storage. */
export class StridedTensor {
  readonly storage: Storage;
  readonly layout: Layout;

  constructor(storage: Storage, layout: Layout) {
    this.storage = storage;
    this.layout = layout;
  }
}

class StorageType {
  readonly dtype: DType;

  constructor(dtype: DType) {
    this.dtype = dtype;
  }
}

/** A part of a storage, in very old files; `start` is its first element. */
class StorageView {
  readonly storage: Storage;
  readonly start: number;

  constructor(storage: Storage, start: number) {
    this.storage = storage;
    this.start = start;
  }
}

/** Dtypes by torch's names of storages. */
export const storageTypes: Readonly<Record<string, DType>> = {
  DoubleStorage: "float64",
  FloatStorage: "float32",
  HalfStorage: "float16",
  BFloat16Storage: "bfloat16",
  LongStorage: "int64",
  IntStorage: "int32",
  ShortStorage: "int16",
  CharStorage: "int8",
  ByteStorage: "uint8",
  BoolStorage: "bool",
};

/** A view with overlapping strides can have more elements than its storage, up to this limit. */
const maxExpansion = 2 ** 24;

const rebuildTensor = new Callable((args) => {
  const [view, offset, shape, strides] = args;
  if (view instanceof Inert) return view;
  if (!(view instanceof StorageView) || !isCount(offset)) throw new Error("pickle: a tensor without a storage");
  if (!isCounts(shape) || !isCounts(strides) || shape.length !== strides.length) {
    throw new Error("pickle: a tensor without whole, not negative sizes and strides");
  }
  const { storage } = view;
  const layout = { shape, strides, offset: view.start + offset };
  const count = countElements(shape);
  if (!(layout.offset + countSpan(layout) <= storage.elements)) {
    throw new Error(
      `pickle: a tensor [${shape.join(", ")}] reaches beyond the ${storage.elements} elements of its storage`,
    );
  }
  if (count > Math.max(storage.elements, maxExpansion)) {
    throw new Error(
      `pickle: a tensor [${shape.join(", ")}] claims more than its storage of ${storage.elements} elements`,
    );
  }
  return new StridedTensor(storage, layout);
});

/** A parameter is its tensor. */
const rebuildParameter = new Callable(([data]) => data);

/** A tensor with attributes: (function, type, arguments, attributes). */
const rebuildFromType = new Callable(([rebuild, , args], spend) => {
  if (rebuild instanceof Inert) return rebuild;
  if (!(rebuild instanceof Callable) || !Array.isArray(args)) throw new Error("pickle: a tensor that nothing rebuilds");
  return rebuild.call(args, spend);
});

/** Python 2 passes the pairs as an argument. */
const orderedDict = new Callable(([pairs = []], spend) => {
  if (pairs instanceof Inert) return pairs;
  if (!Array.isArray(pairs)) throw new Error("pickle: an OrderedDict of what is no list of pairs");
  spend(pairs.length);
  const isPair = (pair: unknown): pair is [unknown, unknown] => Array.isArray(pair) && pair.length === 2;
  if (!pairs.every(isPair)) throw new Error("pickle: an OrderedDict of what is no list of pairs");
  return new Map(pairs);
});

const globals: ReadonlyMap<string, unknown> = new Map<string, unknown>([
  ["collections.OrderedDict", orderedDict],
  ["torch._utils._rebuild_tensor", rebuildTensor],
  ["torch._utils._rebuild_tensor_v2", rebuildTensor],
  ["torch._utils._rebuild_parameter", rebuildParameter],
  ["torch._utils._rebuild_parameter_with_state", rebuildParameter],
  ["torch._tensor._rebuild_from_type_v2", rebuildFromType],
  ...Object.entries(storageTypes).flatMap(([name, dtype]): [string, unknown][] => {
    const type = new StorageType(dtype);
    return [
      [`torch.${name}`, type],
      [`torch.cuda.${name}`, type],
    ];
  }),
]);

/** For `unpickle`; `storages` gathers every storage that the pickle names, by key. */
export function torchEnvironment(storages: Map<string, Storage>): Environment {
  return {
    globals,
    persistent(id) {
      // ("storage", type, key, device, number of elements[, (key of the view, first element, number of elements)])
      const [tag, type, key, , elements, view = null] = Array.isArray(id) ? id : [];
      if (tag !== "storage") return new Inert("a persistent id that is no storage");
      if (type instanceof Inert) return type;
      if (!(type instanceof StorageType) || typeof key !== "string" || !isCount(elements)) {
        throw new Error("pickle: a storage without type, key or size");
      }
      const storage = storages.get(key) ?? { key, dtype: type.dtype, elements };
      if (storage.dtype !== type.dtype || storage.elements !== elements) {
        throw new Error(`pickle: storage ${quote(key)} is described in two ways`);
      }
      storages.set(key, storage);
      if (view === null) return new StorageView(storage, 0);
      const start: unknown = Array.isArray(view) ? view[1] : undefined;
      if (!isCount(start)) throw new Error(`pickle: a view of storage ${quote(key)} without a beginning`);
      return new StorageView(storage, start);
    },
  };
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

function isCounts(value: unknown): value is number[] {
  return Array.isArray(value) && value.length <= maxDimensions && value.every(isCount);
}

export interface StateDict {
  readonly tensors: ReadonlyMap<string, StridedTensor>;
  /** Entries of the top level that are not tensors, as plain values. */
  readonly metadata: Readonly<Record<string, unknown>>;
  /** Names with an unknown object, and the error message for reading them. */
  readonly refused: ReadonlyMap<string, string>;
}

/** Keys of the state dict, where it is not the top level. */
const wrappers = ["model", "state_dict"];

/** Objects can share parts, so a few bytes can describe an endless tree; traversals stop at these limits. */
const maxDepth = 32;
const maxVisited = 1_000_000;
const maxDescribed = 10_000;

/** Finds the state dict. @throws Error if it has no tensors, or contains an unknown object */
export function findStateDict(object: unknown): StateDict {
  const top = object instanceof Map ? object : new Map<unknown, unknown>();
  const inner = wrappers.map((key) => ({ key, found: collect(top.get(key)) }));
  const { key: wrapper, found } = inner.find(({ found }) => found.tensors.size > 0) ??
    inner.find(({ found }) => found.inert.size > 0) ?? { key: undefined, found: collect(object) };
  const { tensors, inert } = found;
  const refused = new Map([...inert].map(([name, { name: global }]) => [name, refusal(global)]));
  const [name, reason] = refused.entries().next().value ?? [];
  if (tensors.size === 0) {
    throw new Error(reason ? `has no tensors; ${reason}` : "has no tensors; save a model's state_dict()");
  }
  if (wrapper !== undefined && name !== undefined) throw new Error(`${quote(name)} should be a tensor; ${reason}`);

  const others = [...top].filter(([key, value]) => key !== wrapper && !(value instanceof StridedTensor));
  const budget = { left: maxDescribed };
  const metadata = Object.fromEntries(others.map(([key, value]) => [keyText(key), describe(value, budget, 0)]));
  return { tensors, metadata, refused };
}

function refusal(global: string): string {
  return `the file has a ${quote(global)} there, which is not executed`;
}

interface Found {
  readonly tensors: Map<string, StridedTensor>;
  readonly inert: Map<string, Inert>;
}

/** Tensors and unknown objects below `root`, by the keys that lead to them. */
function collect(root: unknown): Found {
  const found: Found = { tensors: new Map(), inert: new Map() };
  let visited = 0;
  const visit = (value: unknown, name: string, depth: number): void => {
    if (++visited > maxVisited) throw new Error(`has more than ${maxVisited} values`);
    if (value instanceof StridedTensor) {
      if (found.tensors.has(name)) throw new Error(`has two tensors named ${quote(name)}`);
      found.tensors.set(name, value);
    } else if (value instanceof Inert) found.inert.set(name, value);
    else if (value instanceof Map || Array.isArray(value)) {
      if (depth === maxDepth) throw new Error(`has containers nested more than ${maxDepth} deep`);
      for (const [key, item] of value.entries())
        visit(item, name ? `${name}.${keyText(key)}` : keyText(key), depth + 1);
    }
  };
  visit(root, "", 0);
  return found;
}

/** Plain values unchanged; tensors and unknown objects as a description. */
function describe(value: unknown, budget: { left: number }, depth: number): unknown {
  if (--budget.left < 0 || depth === maxDepth) return "...";
  if (value instanceof StridedTensor) return `tensor ${value.storage.dtype} [${value.layout.shape.join(", ")}]`;
  if (value instanceof Inert) return `not read: ${value.name}`;
  if (value instanceof Uint8Array) return `${value.length} bytes`;
  if (value instanceof Map) {
    return Object.fromEntries(
      take(value, budget.left).map(([key, item]) => [keyText(key), describe(item, budget, depth + 1)]),
    );
  }
  if (Array.isArray(value) || value instanceof Set) {
    return take(value, budget.left).map((item) => describe(item, budget, depth + 1));
  }
  return typeof value === "object" && value !== null ? "not read: an object of PyTorch" : value;
}

function take<T>(items: Iterable<T>, count: number): T[] {
  const taken: T[] = [];
  for (const item of items) {
    if (taken.length === count) break;
    taken.push(item);
  }
  return taken;
}

function keyText(key: unknown): string {
  return typeof key === "object" && key !== null ? "(an object)" : String(key);
}
