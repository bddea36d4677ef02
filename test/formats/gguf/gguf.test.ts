import { join } from "node:path";
import { expect, test } from "vitest";
import { openGguf } from "../../../src/formats/gguf/gguf.ts";
import { openSafetensors } from "../../../src/formats/safetensors.ts";
import { fixture, temporaryFolder, uint32, uint64, writeParts } from "../../helpers/weight-files.ts";

const folder = temporaryFolder();

test("metadata has plain values and arrays", async () => {
  const checkpoint = await openGguf(fixture("blocks.gguf"));
  expect(checkpoint.metadata).toMatchObject({
    "general.architecture": "llama",
    "tokenizer.ggml.tokens": ["a", "b", "grüße"],
    "tokenizer.ggml.token_type": [1, 2, -3],
    "rope.freq_base": 0.5,
    big: 2n ** 60n,
    flag: true,
  });
  await checkpoint.close();
});

test.each([
  ...["F32", "F16", "BF16", "Q4_0", "Q4_1", "Q8_0"].map((type) => ["blocks", type, [3, 64]] as const),
  ...["Q5_0", "Q5_1"].map((type) => ["quantised", type, [3, 64]] as const),
  ...["Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"].map((type) => ["quantised", type, [2, 256]] as const),
])("%s: %s has the values of the gguf package", async (file, type, shape) => {
  const checkpoint = await openGguf(fixture(`${file}.gguf`));
  const expected = await openSafetensors(fixture(`${file}.safetensors`));
  expect(checkpoint.tensors.get(type)).toMatchObject({ storedType: type, shape });
  expect(await checkpoint.readFloat32(type)).toEqual(await expected.readFloat32(type));
  await Promise.all([checkpoint.close(), expected.close()]);
});

test("other quantized types are listed, and refused when read", async () => {
  const checkpoint = await openGguf(fixture("quantised.gguf"));
  expect(checkpoint.tensors.get("IQ4_XS")).toEqual({
    name: "IQ4_XS",
    storedType: "IQ4_XS",
    shape: [1, 256],
    byteLength: 136,
  });
  expect((await checkpoint.readBytes("IQ4_XS")).length).toBe(136);
  await expect(checkpoint.readFloat32("IQ4_XS")).rejects.toThrow(
    /quantised\.gguf, tensor "IQ4_XS".*IQ4_XS.*use one of F32.*Q6_K/,
  );
  await checkpoint.close();
});

const text = (value: string) => [uint64(value.length), value];
const header = (tensors: number | bigint, keys: number | bigint) => ["GGUF", uint32(3), uint64(tensors), uint64(keys)];
const tensor = (dims: (number | bigint)[], type: number, offset: number | bigint) => [
  ...text("w"),
  uint32(dims.length),
  ...dims.map(uint64),
  uint32(type),
  uint64(offset),
];
const pad = new Uint8Array(4096);
const array = (type: number, length: number | bigint) => [...text("k"), uint32(9), uint32(type), uint64(length)];

test.each<[string, (string | Uint8Array)[], string]>([
  ["another version", ["GGUF", uint32(1), pad], "version 1"],
  ["big endian", ["GGUF\x00\x00\x00\x03", pad], "big endian"],
  ["2^60 tensors", [...header(2 ** 60, 0), pad], "1152921504606846976 tensors"],
  ["2^60 keys", [...header(0, 2 ** 60), pad], "metadata keys"],
  ["one tensor too many", [...header(2, 0), ...tensor([1], 0, 0)], "follow"],
  ["a text of 2^60 bytes", [...header(0, 1), uint64(2 ** 60), pad], "characters"],
  ["an array of 2^60 numbers", [...header(0, 1), ...array(0, 2 ** 60), pad], "elements"],
  ["an array of 2^61 numbers of 8 bytes", [...header(0, 1), ...array(10, 2n ** 61n), pad], "elements"],
  ["an array of unknown type", [...header(0, 1), ...array(77, 1), pad], "unknown type number 77"],
  [
    "arrays in arrays in arrays ...",
    [
      ...header(0, 1),
      ...text("k"),
      uint32(9),
      ...Array(99)
        .fill([uint32(9), uint64(1)])
        .flat(),
    ],
    "deep",
  ],
  ["an unknown type", [...header(0, 1), ...text("k"), uint32(13), pad], "unknown type number 13"],
  [
    "a key twice",
    [...header(0, 2), ...text("k"), uint32(0), "\x01", ...text("k"), uint32(0), "\x01", pad],
    '"k" twice',
  ],
  ["a broken alignment", [...header(0, 1), ...text("general.alignment"), uint32(4), uint32(0), pad], "alignment"],
  ["a tensor twice", [...header(2, 0), ...tensor([8], 0, 0), ...tensor([8], 0, 0), pad], 'two tensors named "w"'],
  ["five dimensions", [...header(1, 0), ...tensor([1, 1, 1, 1, 1], 0, 0), pad], "5 dimensions"],
  ["an unknown tensor type", [...header(1, 0), ...tensor([1], 99, 0), pad], "number 99"],
  ["a tensor beyond the end", [...header(1, 0), ...tensor([2 ** 20], 0, 0), pad], "truncated"],
  ["a tensor offset of 2^60", [...header(1, 0), ...tensor([8], 0, 2 ** 60), pad], "truncated"],
  ["an overflowing shape", [...header(1, 0), ...tensor([2n ** 40n, 2n ** 40n], 0, 0), pad], "too many"],
  ["a row of half a block", [...header(1, 0), ...tensor([16, 2], 2, 0), pad], "not a whole number of Q4_0 blocks"],
  ["a row of half a K block", [...header(1, 0), ...tensor([128, 2], 12, 0), pad], "not a whole number of Q4_K blocks"],
  ["K blocks cut short", [...header(1, 0), ...tensor([256, 20], 14, 0), pad], 'tensor "w" (Q6_K [20, 256]) ends'],
  ["an unaligned tensor", [...header(1, 0), ...tensor([8], 0, 4), pad], "aligned"],
])("refused with a reason: %s", async (_, parts, reason) => {
  const path = writeParts(join(folder, "crafted.gguf"), parts);
  const opening = openGguf(path);
  await expect(opening).rejects.toThrow(path);
  await expect(opening).rejects.toThrow(reason);
});
