/** What PyTorch's pickles mean: storages (persistent ids) and tensors rebuilt from them; nothing else is understood. */
import type { DType } from "../tensor/array.ts";
import { countElements, mostDimensions } from "./format.ts";
import { Callable, type Environment, Inert } from "./pickle.ts";
import { quote } from "./quote.ts";
import { type Layout, spanOf } from "./strided.ts";

/** A run of elements, kept in the file apart from the pickle. */
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

/** A part of a storage, as very old files have it; `start` is its first element. */
class StorageView {
  readonly storage: Storage;
  readonly start: number;

  constructor(storage: Storage, start: number) {
    this.storage = storage;
    this.start = start;
  }
}

/** What torch calls the storages of each type. */
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

/** A view with overlapping strides can have more elements than its storage; not without bound. */
const largestExpansion = 2 ** 24;

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
  if (!(layout.offset + spanOf(layout) <= storage.elements)) {
    throw new Error(
      `pickle: a tensor [${shape.join(", ")}] reaches beyond the ${storage.elements} elements of its storage`,
    );
  }
  if (count > Math.max(storage.elements, largestExpansion)) {
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

/** Python 2 gives the pairs as an argument. */
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
  return Array.isArray(value) && value.length <= mostDimensions && value.every(isCount);
}
