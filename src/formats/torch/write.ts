/**
 * Writes `.pth` files like `torch.save` since PyTorch 1.6: a zip archive of uncompressed entries, in which `data.pkl`
 * describes the object and `data/0`, `data/1` ... are the storages of its tensors.
 */
import { Uint8ArrayReader, ZipWriter } from "@zip.js/zip.js";
import { writeFileAtomic } from "../../files/atomic.ts";
import { quote } from "../../files/errors.ts";
import { bytesOf, type DType, type NdArray } from "../../tensor/array.ts";
import { storageTypes } from "./tensors.ts";

export interface TorchWriteOptions {
  /** Key of the dictionary with the tensors; with null they are at the top level. @default "model" */
  readonly under?: string | null;
}

/**
 * Writes `{"model": {name: tensor}}` atomically: to a temporary file that is then renamed. `torch.load` reads it with and
 * without `weights_only` and `mmap`; tensors are aligned to 64 bytes, as in PyTorch.
 *
 * @throws Error naming the tensor if torch has no storage of its type (uint16, uint32, uint64)
 *
 * @example
 * ```ts
 * import { ndarray, writeTorch } from "minigpt4/formats";
 *
 * const weight = ndarray("float32", [2, 3], Float32Array.of(1, 2, 3, 4, 5, 6));
 * await writeTorch("checkpoint.pth", { "proj.weight": weight }, { under: "state_dict" });
 * ```
 */
export async function writeTorch(
  path: string,
  tensors: Readonly<Record<string, NdArray>>,
  { under = "model" }: TorchWriteOptions = {},
): Promise<void> {
  const pickle = encodePickle(path, under, tensors);
  await writeFileAtomic(path, async (file) => {
    const sink = new WritableStream<Uint8Array>({ write: (chunk) => file.writeFile(chunk) });
    // USDZ archives pad entries to 64 bytes, like PyTorch.
    const zip = new ZipWriter(sink, {
      usdz: true,
      level: 0,
      extendedTimestamp: false,
      lastModDate: firstDate,
      useWebWorkers: false,
    });
    const add = (name: string, bytes: Uint8Array) => zip.add(`archive/${name}`, new Uint8ArrayReader(bytes));
    await add("data.pkl", pickle);
    await add("byteorder", ascii("little"));
    for (const [i, { data }] of Object.values(tensors).entries()) await add(`data/${i}`, bytesOf(data));
    await add("version", ascii("3\n"));
    await zip.close();
  });
}

/** The earliest date in zip archives: a fixed date, so that the same tensors give the same file. */
const firstDate = new Date(1980, 0, 1);

const storageNames = new Map<DType, string>(Object.entries(storageTypes).map(([name, dtype]) => [dtype, name]));

/** Opcodes of protocol 2, by CPython's names (`pickletools`). */
const op = {
  PROTO: 0x80,
  EMPTY_DICT: 0x7d,
  EMPTY_TUPLE: 0x29,
  MARK: 0x28,
  TUPLE: 0x74,
  SETITEMS: 0x75,
  BINUNICODE: 0x58,
  BININT: 0x4a,
  LONG1: 0x8a,
  NEWFALSE: 0x89,
  GLOBAL: 0x63,
  REDUCE: 0x52,
  BINPERSID: 0x51,
  STOP: 0x2e,
} as const;

type Opcodes = (number | Uint8Array)[];

function encodePickle(path: string, under: string | null, tensors: Readonly<Record<string, NdArray>>): Uint8Array {
  const items = Object.entries(tensors).flatMap(([name, tensor], i) => {
    const storage = storageNames.get(tensor.dtype);
    if (!storage) throw new Error(`${path}: tensor ${quote(name)}: torch files have no type ${tensor.dtype}`);
    return [...text(name), ...rebuildTensor(tensor, storage, `${i}`)];
  });
  const model = [op.EMPTY_DICT, op.MARK, ...items, op.SETITEMS];
  if (under === null) return concatBytes([op.PROTO, 2, ...model, op.STOP]);
  return concatBytes([op.PROTO, 2, op.EMPTY_DICT, op.MARK, ...text(under), ...model, op.SETITEMS, op.STOP]);
}

/** `_rebuild_tensor_v2(storage, offset, shape, strides, requires_grad, hooks)` */
function rebuildTensor({ shape, data }: NdArray, storage: string, key: string): Opcodes {
  const id = tuple(text("storage"), global("torch", storage), text(key), text("cpu"), integer(data.length));
  const noHooks = [...global("collections", "OrderedDict"), op.EMPTY_TUPLE, op.REDUCE];
  return [
    ...global("torch._utils", "_rebuild_tensor_v2"),
    ...tuple(
      [...id, op.BINPERSID],
      integer(0),
      tuple(...shape.map(integer)),
      tuple(...strides(shape).map(integer)),
      [op.NEWFALSE],
      noHooks,
    ),
    op.REDUCE,
  ];
}

/** Row-major strides in elements; PyTorch counts an empty dimension as one. */
function strides(shape: readonly number[]): number[] {
  const result: number[] = [];
  let stride = 1;
  for (const size of shape.toReversed()) {
    result.unshift(stride);
    stride *= Math.max(size, 1);
  }
  return result;
}

function tuple(...items: readonly Opcodes[]): Opcodes {
  return [op.MARK, ...items.flat(), op.TUPLE];
}

function global(module: string, name: string): Opcodes {
  return [op.GLOBAL, ascii(`${module}\n${name}\n`)];
}

function text(value: string): Opcodes {
  const utf8 = new TextEncoder().encode(value);
  return [op.BINUNICODE, littleEndian(utf8.length, 4), utf8];
}

function integer(value: number): Opcodes {
  return value < 2 ** 31 ? [op.BININT, littleEndian(value, 4)] : [op.LONG1, 8, littleEndian(value, 8)];
}

function littleEndian(value: number, bytes: number): Uint8Array {
  const view = new DataView(new ArrayBuffer(8));
  view.setBigUint64(0, BigInt(value), true);
  return new Uint8Array(view.buffer, 0, bytes);
}

function concatBytes(parts: Opcodes): Uint8Array {
  return Buffer.concat(parts.map((part) => (typeof part === "number" ? Uint8Array.of(part) : part)));
}

function ascii(value: string): Uint8Array {
  return new TextEncoder().encode(value);
}
