/**
 * Arrays in memory: the inputs and outputs of a session, and the contents of weight files.
 *
 * An `NdArray` is plain data (type, shape, row-major values); arithmetic on it belongs in a graph, not here.
 */

/** Element types, by their ONNX names. `float16` and `bfloat16` are kept as their raw 16 bits. */
export type DType =
  | "float32"
  | "float64"
  | "float16"
  | "bfloat16"
  | "int8"
  | "uint8"
  | "int16"
  | "uint16"
  | "int32"
  | "uint32"
  | "int64"
  | "uint64"
  | "bool";

/** The typed array of each element type. */
export interface ArrayOf {
  float32: Float32Array;
  float64: Float64Array;
  float16: Uint16Array;
  bfloat16: Uint16Array;
  int8: Int8Array;
  uint8: Uint8Array;
  int16: Int16Array;
  uint16: Uint16Array;
  int32: Int32Array;
  uint32: Uint32Array;
  int64: BigInt64Array;
  uint64: BigUint64Array;
  bool: Uint8Array;
}

/** Row-major values with a type and a shape; `data.length` is the product of `shape`. */
export interface NdArray<D extends DType = DType> {
  readonly dtype: D;
  readonly shape: readonly number[];
  readonly data: ArrayOf[D];
}

const constructors = {
  float32: Float32Array,
  float64: Float64Array,
  float16: Uint16Array,
  bfloat16: Uint16Array,
  int8: Int8Array,
  uint8: Uint8Array,
  int16: Int16Array,
  uint16: Uint16Array,
  int32: Int32Array,
  uint32: Uint32Array,
  int64: BigInt64Array,
  uint64: BigUint64Array,
  bool: Uint8Array,
} as const;

/** Bytes of one element. */
export function bytesPerElement(dtype: DType): number {
  return constructors[dtype].BYTES_PER_ELEMENT;
}

/** Number of elements of a shape. */
export function sizeOf(shape: readonly number[]): number {
  return shape.reduce((product, dim) => product * dim, 1);
}

/**
 * Reinterprets little-endian bytes as elements of `dtype`; copies only unaligned bytes.
 * @throws RangeError if the byte length is not a multiple of the element size
 */
export function viewBytes<D extends DType>(dtype: D, bytes: Uint8Array): ArrayOf[D] {
  const size = bytesPerElement(dtype);
  if (bytes.byteLength % size !== 0) {
    throw new RangeError(`byte length ${bytes.byteLength} is not a multiple of ${size} (${dtype})`);
  }
  const aligned = (bytes.byteOffset % size === 0 ? bytes : bytes.slice()) as Uint8Array<ArrayBuffer>;
  return new constructors[dtype](aligned.buffer, aligned.byteOffset, aligned.byteLength / size) as ArrayOf[D];
}

/** The bytes of a typed array, without a copy. */
export function bytesOf(data: ArrayBufferView): Uint8Array {
  return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
}

/**
 * Creates an array.
 *
 * @throws RangeError if the number of values is not the product of `shape`
 *
 * @example
 * ```ts
 * import { ndarray } from "minigpt4/formats";
 *
 * const identity = ndarray("float32", [2, 2], Float32Array.of(1, 0, 0, 1));
 * console.log(identity.shape);
 * ```
 */
export function ndarray<D extends DType>(dtype: D, shape: readonly number[], data: ArrayOf[D]): NdArray<D> {
  if (data.length !== sizeOf(shape)) {
    throw new RangeError(
      `Expected ${sizeOf(shape)} values for a ${dtype} array of shape [${shape.join(", ")}], found ${data.length}`,
    );
  }
  return { dtype, shape, data };
}

const onnxTypes: Record<DType, number> = {
  float32: 1,
  uint8: 2,
  int8: 3,
  uint16: 4,
  int16: 5,
  int32: 6,
  int64: 7,
  bool: 9,
  float16: 10,
  float64: 11,
  uint32: 12,
  uint64: 13,
  bfloat16: 16,
};

/** The ONNX code of an element type (TensorProto.DataType). */
export function onnxType(dtype: DType): number {
  return onnxTypes[dtype];
}

/** Concatenates arrays. */
export function concatFloat32(parts: readonly Float32Array[]): Float32Array {
  const all = new Float32Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}
