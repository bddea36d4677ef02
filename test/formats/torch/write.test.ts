import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { expect, test } from "vitest";
import { fromBufferPromise } from "yauzl";
import { openCheckpoint } from "../../../src/formats/open.ts";
import { writeTorch } from "../../../src/formats/torch/write.ts";
import {
  bytesOf,
  bytesPerElement,
  type DType,
  type NdArray,
  ndarray,
  sizeOf,
  viewBytes,
} from "../../../src/tensor/array.ts";
import { temporaryFolder } from "../../helpers/weight-files.ts";

const folder = temporaryFolder();

const dtypes = [
  "float32",
  "float16",
  "bfloat16",
  "float64",
  "int64",
  "int32",
  "int16",
  "int8",
  "uint8",
  "bool",
] as const satisfies readonly DType[];

const array: fc.Arbitrary<NdArray> = fc
  .record({
    dtype: fc.constantFrom(...dtypes),
    shape: fc.array(fc.nat({ max: 4 }), { maxLength: 4 }),
  })
  .chain(({ dtype, shape }) => {
    const length = sizeOf(shape) * bytesPerElement(dtype);
    return fc
      .uint8Array({ minLength: length, maxLength: length })
      .map((bytes) => ndarray(dtype, shape, viewBytes(dtype, bytes)));
  });

/** Tensor names as they are, and any other text. A reader cannot tell an empty name from no name. */
const name = fc.oneof(
  fc.constantFrom("llama_proj.weight", "a.b..c", "10", "投影.重み", "__proto__", "ключ \u0000\n'\""),
  fc.string({ unit: "grapheme", minLength: 1 }),
);
const tensors = fc
  .array(fc.tuple(name, array), { minLength: 1, maxLength: 6 })
  .map((entries) => Object.fromEntries(entries));

interface Entry {
  readonly name: string;
  readonly start: number;
  readonly size: number;
  readonly method: number;
}

/** The archive's entries, where each one's bytes begin, and how they are compressed. */
async function zipDirectory(path: string): Promise<Entry[]> {
  const zip = await fromBufferPromise(readFileSync(path), { lazyEntries: true });
  const entries: Entry[] = [];
  for await (const entry of zip.eachEntry()) {
    const { fileDataStart } = await zip.readLocalFileHeaderPromise(entry);
    entries.push({
      name: entry.fileName,
      start: fileDataStart,
      size: entry.uncompressedSize,
      method: entry.compressionMethod,
    });
  }
  return entries;
}

test("names, types, shapes and every bit survive writing and reading", async () => {
  const path = join(folder, "any.pth");
  await fc.assert(
    fc.asyncProperty(tensors, async (tensors) => {
      await writeTorch(path, tensors);
      const read = await openCheckpoint(path);
      try {
        expect(new Set(read.tensors.keys())).toEqual(new Set(Object.keys(tensors)));
        for (const [name, { dtype, shape, data }] of Object.entries(tensors)) {
          expect(read.tensors.get(name)).toMatchObject({ storedType: dtype, shape });
          expect(Buffer.from(await read.readBytes(name)).equals(bytesOf(data))).toBe(true);
        }
      } finally {
        await read.close();
      }
    }),
    { numRuns: 60 },
  );
});

test("the archive has the layout of torch: uncompressed entries, tensors aligned to 64 bytes", async () => {
  const path = join(folder, "layout.pth");
  await writeTorch(path, {
    odd: ndarray("uint8", [3], Uint8Array.of(1, 2, 3)),
    empty: ndarray("float32", [0, 3], new Float32Array()),
    large: ndarray("float64", [40_000], Float64Array.from({ length: 40_000 }, Math.sqrt)),
  });
  const entries = await zipDirectory(path);
  expect(entries.map(({ name, size }) => [name, size])).toEqual([
    ["archive/data.pkl", expect.any(Number)],
    ["archive/byteorder", 6],
    ["archive/data/0", 3],
    ["archive/data/1", 0],
    ["archive/data/2", 320_000],
    ["archive/version", 2],
  ]);
  for (const { name, method, start } of entries) {
    expect({ name, method, misalignment: start % 64 }).toEqual({ name, method: 0, misalignment: 0 });
  }
  const content = (name: string) => {
    const { start, size } = entries.find((entry) => entry.name === `archive/${name}`) as Entry;
    return readFileSync(path).toString("latin1", start, start + size);
  };
  expect(content("byteorder")).toBe("little");
  expect(content("version")).toBe("3\n");
  expect(content("data/0")).toBe("\x01\x02\x03");
});

test("the pickle, opcode by opcode", async () => {
  const path = join(folder, "opcodes.pth");
  await writeTorch(path, { w: ndarray("float32", [2, 3], new Float32Array(6)) }, { under: "m" });
  const [entry] = await zipDirectory(path);
  const { start = 0, size = 0 } = entry ?? {};
  const int = (value: number) => `J${String.fromCharCode(value)}\0\0\0`;
  const text = (value: string) => `X${String.fromCharCode(value.length)}\0\0\0${value}`;
  expect(readFileSync(path).toString("latin1", start, start + size)).toBe(
    [
      "\x80\x02}(",
      text("m"),
      "}(",
      text("w"),
      "ctorch._utils\n_rebuild_tensor_v2\n(",
      `(${text("storage")}ctorch\nFloatStorage\n${text("0")}${text("cpu")}${int(6)}tQ`,
      `${int(0)}(${int(2)}${int(3)}t(${int(3)}${int(1)}t\x89ccollections\nOrderedDict\n)Rt`,
      "R",
      "uu.",
    ].join(""),
  );
});

test("the same tensors give the same file", async () => {
  const paths = [join(folder, "first.pth"), join(folder, "second.pth")];
  for (const path of paths) await writeTorch(path, { w: ndarray("bool", [2], Uint8Array.of(1, 0)) });
  const [first, second] = paths.map((path) => readFileSync(path));
  expect(first).toEqual(second);
});

test("a type without a torch storage is refused, and the existing file is kept", async () => {
  const path = join(folder, "refused.pth");
  writeFileSync(path, "before");
  const writing = writeTorch(path, { w: ndarray("uint32", [1], Uint32Array.of(1)) });
  await expect(writing).rejects.toThrow(`${path}: tensor "w": torch files have no type uint32`);
  expect(readFileSync(path, "utf8")).toBe("before");
  expect(readdirSync(folder).filter((name) => name.includes("partial"))).toEqual([]);
});
