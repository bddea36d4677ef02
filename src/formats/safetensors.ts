/**
 * Reads and writes safetensors files: the length of the header in 8 bytes (little endian), a JSON header, and the bytes of the
 * tensors without gaps (https://github.com/huggingface/safetensors).
 */

import { writeFileAtomic } from "../files/atomic.ts";
import { quote } from "../files/errors.ts";
import type { RandomAccessFile } from "../files/file.ts";
import { parseJson } from "../files/json.ts";
import { bytesOf, bytesPerElement, type DType, type NdArray, sizeOf } from "../tensor/array.ts";
import { widen } from "../tensor/float16.ts";
import { type Checkpoint, type Contents, countElements, openFile, type StoredTensor } from "./checkpoint.ts";

/** The limit of the reference implementation. */
const maxHeaderBytes = 100_000_000;

/** Bits of an element, and its dtype; types without one are listed, but cannot be read as float32. */
const types: Readonly<Record<string, { readonly bits: number; readonly dtype?: DType }>> = {
  F64: { bits: 64, dtype: "float64" },
  F32: { bits: 32, dtype: "float32" },
  F16: { bits: 16, dtype: "float16" },
  BF16: { bits: 16, dtype: "bfloat16" },
  I64: { bits: 64, dtype: "int64" },
  I32: { bits: 32, dtype: "int32" },
  I16: { bits: 16, dtype: "int16" },
  I8: { bits: 8, dtype: "int8" },
  U64: { bits: 64, dtype: "uint64" },
  U32: { bits: 32, dtype: "uint32" },
  U16: { bits: 16, dtype: "uint16" },
  U8: { bits: 8, dtype: "uint8" },
  BOOL: { bits: 8, dtype: "bool" },
  F8_E4M3: { bits: 8 },
  F8_E5M2: { bits: 8 },
  F8_E8M0: { bits: 8 },
  F6_E2M3: { bits: 6 },
  F6_E3M2: { bits: 6 },
  F4: { bits: 4 },
  C64: { bits: 64 },
};

/** The dtype of a stored type; undefined if it is not supported. */
export function safetensorsType(storedType: string): DType | undefined {
  return Object.hasOwn(types, storedType) ? types[storedType]?.dtype : undefined;
}

/** Opens one safetensors file. @throws Error naming the file if it is damaged */
export function openSafetensors(path: string): Promise<Checkpoint> {
  return openFile(path, parse);
}

async function parse(file: RandomAccessFile): Promise<Contents> {
  const prefix = await file.read(0, 8);
  const claimed = new DataView(prefix.buffer).getBigUint64(0, true);
  if (claimed > maxHeaderBytes) {
    throw new Error(
      `claims a header of ${claimed} bytes; safetensors allows ${maxHeaderBytes}. Is this a safetensors file?`,
    );
  }
  const length = Number(claimed);
  const header = parseHeader(await file.read(8, length));
  const dataStart = 8 + length;
  const metadata = header.get("__metadata__") ?? {};
  if (!isStringRecord(metadata)) throw new Error("__metadata__ is not an object of strings");
  header.delete("__metadata__");

  const placed = [...header].map(([name, entry]) => locateTensor(file, dataStart, name, entry));
  checkCover(placed, file.size - dataStart);
  return { format: "safetensors", metadata, tensors: placed };
}

function parseHeader(bytes: Uint8Array): Map<string, unknown> {
  const header = parseJson(bytes);
  if (!isRecord(header)) throw new Error("the safetensors header is not a JSON object");
  return new Map(Object.entries(header));
}

interface LocatedTensor extends StoredTensor {
  readonly begin: number;
  readonly end: number;
}

function locateTensor(file: RandomAccessFile, dataStart: number, name: string, entry: unknown): LocatedTensor {
  const where = `tensor ${quote(name)}`;
  if (!isRecord(entry)) throw new Error(`${where}: its header entry is not an object`);
  const { dtype: storedType, shape, data_offsets: offsets } = entry;
  if (typeof storedType !== "string") throw new Error(`${where}: has no dtype`);
  const type = Object.hasOwn(types, storedType) ? types[storedType] : undefined;
  if (!type) throw new Error(`${where}: unknown type ${quote(storedType)}`);
  if (!Array.isArray(shape)) throw new Error(`${where}: has no shape`);
  const [begin, end]: unknown[] = Array.isArray(offsets) ? offsets : [];
  if (!isOffset(begin) || !isOffset(end)) throw new Error(`${where}: has no pair of data_offsets`);
  if (begin > end || dataStart + end > file.size) {
    throw new Error(
      `${where}: its bytes ${begin} to ${end} are outside the ${file.size - dataStart} bytes of data; ` +
        "is the file truncated?",
    );
  }
  const bytes = (countElements(shape) * type.bits) / 8;
  if (bytes !== end - begin) {
    throw new Error(
      `${where}: ${storedType} [${shape.join(", ")}] takes ${bytes} bytes, but ${end - begin} are stored`,
    );
  }
  return {
    begin,
    end,
    info: { name, storedType, shape, byteLength: bytes },
    offset: dataStart + begin,
    readBytes: () => file.read(dataStart + begin, bytes),
    toFloat32: (data) => {
      if (!type.dtype) throw new Error(`values of type ${storedType} cannot be read as float32 yet`);
      return widen(type.dtype, data);
    },
  };
}

/** The format has neither gaps nor overlaps: bytes that belong to no tensor, or to two, are a sign of damage. */
function checkCover(tensors: readonly LocatedTensor[], dataSize: number): void {
  let covered = 0;
  for (const { begin, end, info } of tensors.toSorted((a, b) => a.begin - b.begin || a.end - b.end)) {
    if (begin !== covered) {
      throw new Error(
        `tensor ${quote(info.name)}: begins at byte ${begin} of the data, but the one before ends at ${covered}`,
      );
    }
    covered = end;
  }
  if (covered !== dataSize) throw new Error(`${dataSize - covered} bytes at the end belong to no tensor`);
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isStringRecord(value: unknown): value is Record<string, string> {
  return isRecord(value) && Object.values(value).every((item) => typeof item === "string");
}

function isOffset(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

const typeNames = new Map(Object.entries(types).flatMap(([name, { dtype }]) => (dtype ? [[dtype, name]] : [])));

/**
 * Writes tensors to one safetensors file atomically: to a temporary file that is then renamed.
 *
 * @param metadata strings for `__metadata__`
 *
 * @example
 * ```ts
 * import { ndarray, writeSafetensors } from "minigpt4/formats";
 *
 * const weight = ndarray("float32", [2, 3], Float32Array.of(1, 2, 3, 4, 5, 6));
 * await writeSafetensors("model.safetensors", { "proj.weight": weight }, { format: "pt" });
 * ```
 */
export async function writeSafetensors(
  path: string,
  tensors: Readonly<Record<string, NdArray>>,
  metadata?: Readonly<Record<string, string>>,
): Promise<void> {
  // Wide types first keeps every tensor aligned to its element size.
  const entries = Object.entries(tensors).sort(([, a], [, b]) => bytesPerElement(b.dtype) - bytesPerElement(a.dtype));
  const header = safetensorsHeader(
    path,
    entries.map(([name, { dtype, shape }]) => ({ name, dtype, shape })),
    metadata,
  );
  await writeFileAtomic(path, async (file) => {
    await file.writeFile(header);
    for (const [, { data }] of entries) await file.writeFile(bytesOf(data));
  });
}

/** Name, dtype and shape of a tensor to write. */
export interface TensorSpec {
  readonly name: string;
  readonly dtype: DType;
  readonly shape: readonly number[];
}

/** Encodes the header of a file with these tensors, in this order. */
export function safetensorsHeader(
  path: string,
  tensors: readonly TensorSpec[],
  metadata?: Readonly<Record<string, string>>,
): Uint8Array {
  const header = new Map<string, unknown>(metadata ? [["__metadata__", metadata]] : []);
  let offset = 0;
  for (const { name, dtype, shape } of tensors) {
    if (name === "__metadata__") throw new Error(`${path}: a tensor cannot be named __metadata__`);
    const end = offset + countBytes({ dtype, shape });
    header.set(name, { dtype: typeNames.get(dtype), shape, data_offsets: [offset, end] });
    offset = end;
  }
  const json = new TextEncoder().encode(JSON.stringify(Object.fromEntries(header)));
  const prefix = new Uint8Array(8 + Math.ceil(json.length / 8) * 8).fill(0x20);
  new DataView(prefix.buffer).setBigUint64(0, BigInt(prefix.length - 8), true);
  prefix.set(json, 8);
  return prefix;
}

/** Size of a tensor in bytes. */
export function countBytes({ dtype, shape }: Pick<TensorSpec, "dtype" | "shape">): number {
  return sizeOf(shape) * bytesPerElement(dtype);
}
