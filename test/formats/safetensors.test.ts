import { readdirSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { expect, test } from "vitest";
import { openSafetensors, writeSafetensors } from "../../src/formats/safetensors.ts";
import { bytesOf, bytesPerElement, type DType, ndarray, viewBytes } from "../../src/tensor/array.ts";
import { temporaryFolder, uint64, writeParts } from "../helpers/weight-files.ts";

const folder = temporaryFolder();

function withHeader(header: unknown, data = new Uint8Array(0)): string {
  const json = typeof header === "string" ? header : JSON.stringify(header);
  return writeParts(join(folder, "crafted.safetensors"), [uint64(json.length), json, data]);
}

const dtypes: DType[] = [
  "float64",
  "float32",
  "float16",
  "bfloat16",
  "int64",
  "int32",
  "int16",
  "int8",
  "uint8",
  "bool",
];
const arrays = fc
  .record({ dtype: fc.constantFrom(...dtypes), shape: fc.array(fc.integer({ min: 0, max: 5 }), { maxLength: 3 }) })
  .chain(({ dtype, shape }) => {
    const length = shape.reduce((product, dim) => product * dim, bytesPerElement(dtype));
    const bytes = fc.uint8Array({ minLength: length, maxLength: length });
    return bytes.map((data) => ndarray(dtype, shape, viewBytes(dtype, data)));
  });
const names = fc.string({ minLength: 1, unit: "grapheme" }).filter((name) => name !== "__metadata__");

test("names, shapes, bytes and metadata survive writing and reading", async () => {
  const path = join(folder, "round.safetensors");
  const metadata = fc.dictionary(fc.string(), fc.string());
  await fc.assert(
    fc.asyncProperty(fc.dictionary(names, arrays, { maxKeys: 6 }), metadata, async (tensors, strings) => {
      await writeSafetensors(path, tensors, strings);
      const checkpoint = await openSafetensors(path);
      expect(Object.entries(checkpoint.metadata).sort()).toEqual(Object.entries(strings).sort());
      expect([...checkpoint.tensors.keys()].sort()).toEqual(Object.keys(tensors).sort());
      for (const [name, { shape, data }] of Object.entries(tensors)) {
        expect(checkpoint.tensors.get(name)?.shape).toEqual(shape);
        expect(Buffer.compare(await checkpoint.readBytes(name), bytesOf(data))).toBe(0);
      }
      await checkpoint.close();
    }),
    { numRuns: 60 },
  );
});

test("a failed write leaves no file and no temporary file", async () => {
  const place = join(folder, "taken");
  await writeSafetensors(join(folder, "file.safetensors"), {});
  const before = readdirSync(folder).length;
  await expect(writeSafetensors(join(place, "x.safetensors"), {})).rejects.toThrow("ENOENT");
  const badShape = { __metadata__: ndarray("uint8", [1], new Uint8Array(1)) };
  await expect(writeSafetensors(join(folder, "new.safetensors"), badShape)).rejects.toThrow("new.safetensors");
  expect(readdirSync(folder).length).toBe(before);
});

test("float16, bfloat16 and integers are converted to float32", async () => {
  const path = join(folder, "types.safetensors");
  await writeSafetensors(path, {
    half: ndarray("float16", [3], Uint16Array.of(0x3c00, 0xfbff, 0x0001)),
    brain: ndarray("bfloat16", [2], Uint16Array.of(0x3f81, 0xc000)),
    long: ndarray("int64", [1], BigInt64Array.of(-3n)),
  });
  const checkpoint = await openSafetensors(path);
  expect([...(await checkpoint.readFloat32("half"))]).toEqual([1, -65504, 2 ** -24]);
  expect([...(await checkpoint.readFloat32("brain"))]).toEqual([1.0078125, -2]);
  expect([...(await checkpoint.readFloat32("long"))]).toEqual([-3]);
  expect(checkpoint.tensors.get("half")).toEqual({
    name: "half",
    storedType: "F16",
    shape: [3],
    byteLength: 6,
    range: { path: checkpoint.path, offset: expect.any(Number), length: 6 },
  });
  await expect(checkpoint.readFloat32("missing")).rejects.toThrow(`${path}, tensor "missing": not in this file`);
  await checkpoint.close();
  await expect(checkpoint.readFloat32("half")).rejects.toThrow(path);
});

test("types without float32 values are listed, and refused when read", async () => {
  const path = withHeader({ a: { dtype: "F8_E4M3", shape: [2], data_offsets: [0, 2] } }, new Uint8Array(2));
  const checkpoint = await openSafetensors(path);
  expect(checkpoint.tensors.get("a")?.storedType).toBe("F8_E4M3");
  expect(await checkpoint.readBytes("a")).toEqual(new Uint8Array(2));
  await expect(checkpoint.readFloat32("a")).rejects.toThrow("F8_E4M3");
  await checkpoint.close();
});

const f32 = (shape: number[], data_offsets: number[]) => ({ dtype: "F32", shape, data_offsets });
test.each([
  [
    "a header of 2^60 bytes",
    () => writeParts(join(folder, "huge.safetensors"), [uint64(2 ** 60), "{}"]),
    "1152921504606846976",
  ],
  ["a header beyond the end", () => writeParts(join(folder, "long.safetensors"), [uint64(99), "{}"]), "truncated"],
  ["a header that is not JSON", () => withHeader("{]"), "JSON"],
  ["deeply nested JSON", () => withHeader("[".repeat(1_000_000)), "deep"],
  ["a header of far more values than tensors", () => withHeader(`[${"0,".repeat(10_000_001)}0]`), "10000000 values"],
  ["a name that would reach the terminal", () => withHeader({ ["\u001b".repeat(1000)]: null }), '\\u001b..."'],
  ["a header that is not an object", () => withHeader("[]"), "object"],
  ["metadata that is not an object of strings", () => withHeader({ __metadata__: { a: 1 } }), "__metadata__"],
  ["an entry that is not an object", () => withHeader({ a: null }), 'tensor "a"'],
  ["an unknown type", () => withHeader({ a: { dtype: "toString", shape: [], data_offsets: [0, 0] } }), "toString"],
  ["data beyond the end", () => withHeader({ a: f32([2], [0, 8]) }, new Uint8Array(4)), "truncated"],
  ["a shape of other size", () => withHeader({ a: f32([3], [0, 8]) }, new Uint8Array(8)), "12 bytes, but 8"],
  ["a negative dimension", () => withHeader({ a: f32([-1, -2], [0, 8]) }, new Uint8Array(8)), "impossible"],
  ["an overflowing shape", () => withHeader({ a: f32([2 ** 40, 2 ** 40], [0, 8]) }, new Uint8Array(8)), "too many"],
  ["overlapping tensors", () => withHeader({ a: f32([2], [0, 8]), b: f32([2], [4, 12]) }, new Uint8Array(12)), '"b"'],
  ["a gap", () => withHeader({ a: f32([1], [4, 8]) }, new Uint8Array(8)), '"a"'],
  ["bytes of no tensor", () => withHeader({ a: f32([1], [0, 4]) }, new Uint8Array(8)), "4 bytes at the end"],
])("refused with a reason: %s", async (_, make, reason) => {
  const path = make();
  const opening = openSafetensors(path);
  await expect(opening).rejects.toThrow(path);
  await expect(opening).rejects.toThrow(reason);
});
