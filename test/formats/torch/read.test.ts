import { join } from "node:path";
import { expect, test } from "vitest";
import { openTorch } from "../../../src/formats/torch/read.ts";
import { fixture, golden, readAll, temporaryFolder, uint64, writeParts } from "../../helpers/weight-files.ts";

const folder = temporaryFolder();
const magic = "\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}.";
const ones = Buffer.from(Float32Array.of(1, 2, 3, 4, 5, 6).buffer);

/** A tensor over storage "0" (6 float32), in opcodes. */
function tensor(shape = "K\x02K\x03\x86", strides = "K\x03K\x01\x86", offset = "K\x00"): string {
  const id = "(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x06NtQ";
  return `ctorch._utils\n_rebuild_tensor_v2\n(${id}${offset}${shape}${strides}\x89}tR`;
}

/** A file in the older layout whose object is `pickle`. */
function legacy(name: string, pickle: string, storages = pickle.includes("FloatStorage") ? 1 : 0): string {
  const keys = "\x80\x02](X\x01\x00\x00\x000e.";
  const data = Array.from({ length: storages }, () => [uint64(6), ones]).flat();
  return writeParts(join(folder, name), [magic, `\x80\x02${pickle}.`, storages > 0 ? keys : "\x80\x02].", ...data]);
}

function entry(key: string, value: string): string {
  return `X${String.fromCharCode(key.length)}\x00\x00\x00${key}${value}`;
}

test.each(["views.pth", "views-legacy.pth", "views-protocol4.pth"])(
  "%s: views, shared storages and all types, as torch has them",
  async (name) => {
    const all = await readAll(fixture(name));
    const expected = await readAll(fixture("views.safetensors"));
    expect(Object.keys(all)).toHaveLength(16);
    expect(all).toEqual(expected);
  },
);

test("entries next to the state dict are described, not executed", async () => {
  const checkpoint = await openTorch(fixture("views.pth"));
  expect(checkpoint.metadata).toEqual({
    args: "not read: argparse.Namespace",
    epoch: 3,
    history: [1.5, null, "text", 2n ** 70n],
    seen: "not read: __builtin__.set",
  });
  expect(checkpoint.tensors.get("transposed")).toMatchObject({
    storedType: "float32",
    shape: [5, 3, 4],
    byteLength: 240,
  });
  const bytes = await checkpoint.readBytes("int16");
  expect([...bytes]).toEqual([0xd4, 0xfe]);
  await checkpoint.close();
});

test("names inside nested dictionaries are joined by dots", async () => {
  expect(await readAll(fixture("nested.pth"))).toEqual({
    "decoder.w": [[2], Float32Array.of(0, 0)],
    "encoder.w": [[2], Float32Array.of(1, 1)],
  });
});

test.each(["mha", "gqa"])(
  "%s: both layouts of the projection hold the same, without optimizer and config",
  async (set) => {
    const zip = await readAll(golden(`${set}/minigpt4.pth`));
    expect(Object.keys(zip)).toEqual(["llama_proj.bias", "llama_proj.weight"]);
    expect(await readAll(golden(`${set}/minigpt4-legacy.pth`))).toEqual(zip);
  },
);

test("a plain state dict in float16 keeps its names", async () => {
  const checkpoint = await openTorch(golden("mha/eva_vit.pth"));
  expect(checkpoint.tensors.get("blocks.0.attn.qkv.weight")).toMatchObject({ storedType: "float16", shape: [192, 64] });
  for (const name of [
    "cls_token",
    "pos_embed",
    "patch_embed.proj.weight",
    "blocks.0.attn.q_bias",
    "blocks.0.mlp.fc1.bias",
  ]) {
    expect(checkpoint.tensors.has(name), name).toBe(true);
  }
  await checkpoint.close();
});

const evil = "cos\nsystem\n(S'touch x'\ntR";

test("a call next to the tensors is skipped and named", async () => {
  const path = legacy("beside.pth", `}(${entry("model", `}(${entry("w", tensor())}u`)}${entry("hook", evil)}u`);
  const checkpoint = await openTorch(path);
  expect(checkpoint.metadata).toEqual({ hook: "not read: os.system" });
  expect(await checkpoint.readFloat32("w")).toEqual(Float32Array.of(1, 2, 3, 4, 5, 6));
  await checkpoint.close();
});

test("a call at the top level of a state dict is refused when its tensor is read", async () => {
  const checkpoint = await openTorch(legacy("top.pth", `}(${entry("a", tensor())}${entry("b", evil)}u`));
  await expect(checkpoint.readFloat32("b")).rejects.toThrow("os.system");
  await checkpoint.close();
});

const tooLong = "claims more than its storage of 6 elements";
test.each([
  ["a call as the whole object", evil, "os.system"],
  ["a call where the state dict should be", `}(${entry("model", evil)}${entry("a", tensor())}u`, "os.system"],
  [
    "a call where a tensor should be",
    `}(${entry("model", `}(${entry("a", tensor())}${entry("b", evil)}u`)}u`,
    "os.system",
  ],
  [
    "a call where a storage should be",
    `}(${entry("a", `ctorch._utils\n_rebuild_tensor_v2\n(${evil}K\x00)))\x89}tR`)}u`,
    "os.system",
  ],
  [
    "a tensor class that is not understood",
    `}(${entry("a", "ctorch._utils\n_rebuild_sparse_tensor\n)R")}u`,
    "_rebuild_sparse_tensor",
  ],
  ["no tensors", "}", "state_dict()"],
  ["a view beyond its storage", `}(${entry("a", tensor("K\x07\x85", "K\x01\x85"))}u`, "reaches beyond"],
  ["an offset beyond its storage", `}(${entry("a", tensor(")", ")", "K\x06"))}u`, "reaches beyond"],
  ["a negative stride", `}(${entry("a", tensor("K\x02\x85", "J\xff\xff\xff\xff\x85"))}u`, "not negative"],
  ["a view of 2^31 elements of one", `}(${entry("a", tensor("J\xff\xff\xff\x7f\x85", "K\x00\x85"))}u`, tooLong],
  ["a size that is not a number", `}(${entry("a", tensor("N\x85", "K\x00\x85"))}u`, "without whole"],
  [
    "a dictionary in itself",
    `}q\x05(${entry("model", `}q\x06(${entry("w", tensor())}${entry("me", "h\x06")}u`)}u`,
    "deep",
  ],
])("refused with a reason: %s", async (_, pickle, reason) => {
  const path = legacy("refused.pth", pickle);
  const opening = openTorch(path);
  await expect(opening).rejects.toThrow(path);
  await expect(opening).rejects.toThrow(reason);
});

test("shared dictionaries that expand to 2^60 entries are refused", async () => {
  const level = `}(${entry("a", "h\x00")}${entry("b", "h\x00")}uq\x00`;
  const path = legacy("bomb.pth", `}(${entry("w", tensor())}uq\x00${level.repeat(30)}`);
  await expect(openTorch(path)).rejects.toThrow("1000000 values");
});

test("shared values next to the tensors are not expanded", async () => {
  const level = "(h\x00h\x00lq\x00";
  const path = legacy(
    "beside-bomb.pth",
    `]q\x00${level.repeat(60)}0}(${entry("w", tensor())}${entry("x", "]h\x00a")}u`,
  );
  const opening = openTorch(path);
  await expect(opening).rejects.toThrow(path);
  const inside = `]q\x00${level.repeat(60)}0}(${entry("model", `}(${entry("w", tensor())}u`)}${entry("x", "h\x00")}u`;
  const checkpoint = await openTorch(legacy("inside-bomb.pth", inside));
  expect(JSON.stringify(checkpoint.metadata).length).toBeLessThan(10_000_000);
  await checkpoint.close();
});

test("missing and truncated storages are errors", async () => {
  const pickle = `}(${entry("a", tensor())}u`;
  await expect(openTorch(legacy("lacks.pth", pickle, 0))).rejects.toThrow('no storage "0"');
  const short = writeParts(join(folder, "short.pth"), [
    magic,
    `\x80\x02${pickle}.`,
    "\x80\x02](X\x01\x00\x00\x000e.",
    uint64(6),
    ones.subarray(4),
  ]);
  await expect(openTorch(short)).rejects.toThrow("truncated");
});

test("other pickles and archives are refused", async () => {
  await expect(openTorch(writeParts(join(folder, "plain.pkl"), ["\x80\x02]."]))).rejects.toThrow("torch.save");
  const emptyZip = ["PK\x05\x06", new Uint8Array(18)];
  await expect(openTorch(writeParts(join(folder, "empty.zip"), emptyZip))).rejects.toThrow("data.pkl");
  await expect(openTorch(fixture("compressed.pth"))).rejects.toThrow("compressed");
});
