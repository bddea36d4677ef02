/**
 * GGUF, the format of llama.cpp, versions 2 and 3 (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md).
 *
 * `@huggingface/gguf` 0.4 is not used: it parses memory past the end of a truncated local file.
 */
import { quote } from "../../files/errors.ts";
import type { RandomAccessFile } from "../../files/file.ts";
import { type Checkpoint, type Contents, countElements, openFile, type StoredTensor } from "../checkpoint.ts";
import { parseGrowing, type Window } from "../header.ts";
import { ggmlTypes } from "./blocks.ts";

/** Limit for the header in bytes; the largest vocabularies take about 20 MB. */
const maxHeaderBytes = 2 ** 27;
/** Limit for all array elements of the metadata together; each takes more memory than space in the file. */
const maxElements = 2 ** 24;
/** ggml's limit. */
const maxDimensions = 4;

/** Opens a GGUF file. @throws Error naming the file if it is damaged */
export function openGguf(path: string): Promise<Checkpoint> {
  return openFile(path, parse);
}

async function parse(file: RandomAccessFile): Promise<Contents> {
  const { metadata, entries, end } = await parseGrowing(file, maxHeaderBytes, parseHeader);
  const alignment = metadata.get("general.alignment") ?? 32;
  if (typeof alignment !== "number" || alignment <= 0 || alignment % 8 !== 0) {
    throw new Error(`general.alignment is ${alignment}, not a multiple of 8`);
  }
  const dataStart = Math.ceil(end / alignment) * alignment;
  const tensors = entries.map((entry) => locateTensor(file, dataStart, alignment, entry));
  return { format: "gguf", metadata: Object.fromEntries(metadata), tensors };
}

interface Entry {
  readonly name: string;
  readonly shape: readonly number[];
  readonly type: number;
  readonly offset: number;
}

interface Header {
  readonly metadata: ReadonlyMap<string, unknown>;
  readonly entries: readonly Entry[];
  /** Offset of the first byte after the header. */
  readonly end: number;
}

function parseHeader(window: Window): Header {
  if (window.text(4) !== "GGUF") throw new Error("does not start with GGUF");
  const version = window.uint32();
  if (version >= 2 ** 16) throw new Error("is big endian; only little-endian GGUF files can be read");
  if (version !== 2 && version !== 3) throw new Error(`is GGUF version ${version}; versions 2 and 3 can be read`);
  const tensorCount = count(window, "tensors", 8 + 4 + 4 + 8);
  const keyCount = count(window, "metadata keys", 8 + 4 + 1);

  const metadata = new Map<string, unknown>();
  const budget = { elements: maxElements };
  for (let i = 0; i < keyCount; i++) {
    const key = string(window);
    if (metadata.has(key)) throw new Error(`has the metadata key ${quote(key)} twice`);
    metadata.set(key, value(window, window.uint32(), budget, key, 0));
  }
  const entries: Entry[] = [];
  for (let i = 0; i < tensorCount; i++) entries.push(tensorEntry(window));
  return { metadata, entries, end: window.position };
}

/** Reads a count of items of at least `leastBytes` each, which must be in the file. */
function count(window: Window, what: string, leastBytes: number): number {
  const claimed = window.uint64();
  if (Number(claimed) * leastBytes > window.left) {
    throw new Error(`claims ${claimed} ${what} at byte ${window.position - 8}, but only ${window.left} bytes follow`);
  }
  return Number(claimed);
}

function string(window: Window): string {
  return window.text(count(window, "characters", 1));
}

interface Budget {
  elements: number;
}

/** Readers of the value types, by number; strings (8) and arrays (9) have a length. */
const scalars: ReadonlyMap<number, { readonly bytes: number; readonly read: (window: Window) => unknown }> = new Map([
  [0, { bytes: 1, read: (window) => window.uint8() }],
  [1, { bytes: 1, read: (window) => window.int8() }],
  [2, { bytes: 2, read: (window) => window.uint16() }],
  [3, { bytes: 2, read: (window) => window.int16() }],
  [4, { bytes: 4, read: (window) => window.uint32() }],
  [5, { bytes: 4, read: (window) => window.int32() }],
  [6, { bytes: 4, read: (window) => window.float32() }],
  [7, { bytes: 1, read: (window) => window.uint8() !== 0 }],
  [10, { bytes: 8, read: (window) => narrow(window.uint64()) }],
  [11, { bytes: 8, read: (window) => narrow(window.int64()) }],
  [12, { bytes: 8, read: (window) => window.float64() }],
]);
const stringType = 8;
const arrayType = 9;
/** Known writers never nest arrays; the format allows it. */
const maxArrayDepth = 4;

function value(window: Window, type: number, budget: Budget, key: string, depth: number): unknown {
  if (type === stringType) return string(window);
  if (type !== arrayType) {
    const scalar = scalars.get(type);
    if (!scalar) throw new Error(`metadata key ${quote(key)} has the unknown type number ${type}`);
    return scalar.read(window);
  }
  if (depth === maxArrayDepth)
    throw new Error(`metadata key ${quote(key)} nests arrays more than ${maxArrayDepth} deep`);
  const elementType = window.uint32();
  // Strings and arrays start with a length of 8 bytes; arrays also have a type.
  const least = scalars.get(elementType)?.bytes ?? (elementType === arrayType ? 12 : 8);
  const length = count(window, `elements of ${quote(key)}`, least);
  budget.elements -= length;
  if (budget.elements < 0) throw new Error(`its metadata arrays have more than ${maxElements} elements`);
  const items: unknown[] = [];
  for (let i = 0; i < length; i++) items.push(value(window, elementType, budget, key, depth + 1));
  return items;
}

function tensorEntry(window: Window): Entry {
  const name = string(window);
  const dimensions = window.uint32();
  if (dimensions > maxDimensions) {
    throw new Error(`tensor ${quote(name)} has ${dimensions} dimensions; GGUF allows ${maxDimensions}`);
  }
  const shape: number[] = [];
  // The file lists the innermost dimension first.
  for (let i = 0; i < dimensions; i++) shape.unshift(Number(window.uint64()));
  return { name, shape, type: window.uint32(), offset: Number(window.uint64()) };
}

function locateTensor(file: RandomAccessFile, dataStart: number, alignment: number, entry: Entry): StoredTensor {
  const { name, shape, offset } = entry;
  const type = ggmlTypes.get(entry.type);
  if (!type) throw new Error(`tensor ${quote(name)} has the unknown type number ${entry.type}`);
  const elements = countElements(shape);
  if ((shape.at(-1) ?? 1) % type.blockElements !== 0) {
    throw new Error(
      `tensor ${quote(name)}: rows of [${shape.join(", ")}] are not a whole number of ${type.name} blocks`,
    );
  }
  const bytes = (elements / type.blockElements) * type.blockBytes;
  if (offset % alignment !== 0)
    throw new Error(`tensor ${quote(name)}: its offset ${offset} is not aligned to ${alignment}`);
  if (dataStart + offset + bytes > file.size) {
    throw new Error(
      `tensor ${quote(name)} (${type.name} [${shape.join(", ")}]) ends at byte ${dataStart + offset + bytes}, ` +
        `but the file has ${file.size}; is it truncated?`,
    );
  }
  return {
    info: { name, storedType: type.name, shape, byteLength: bytes },
    readBytes: () => file.read(dataStart + offset, bytes),
    toFloat32: (data) => {
      if (!type.toFloat32) {
        const readable = [...ggmlTypes.values()].filter((known) => known.toFloat32).map((known) => known.name);
        throw new Error(`values of type ${type.name} cannot be read as float32 yet; use one of ${readable.join(", ")}`);
      }
      return type.toFloat32(data);
    },
  };
}

function narrow(integer: bigint): number | bigint {
  const number = Number(integer);
  return Number.isSafeInteger(number) ? number : integer;
}
