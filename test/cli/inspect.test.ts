import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { minigpt4 } from "../helpers/cli-command.ts";
import { goldenRoot } from "../helpers/golden-set.ts";
import { temporaryFolder } from "../helpers/tiny-model.ts";

const folder = temporaryFolder();
const golden = (name: string) => join(goldenRoot, "mha", name);

function write(name: string, ...parts: (string | Uint8Array)[]): string {
  const path = join(folder, name);
  writeFileSync(path, Buffer.concat(parts.map((part) => Buffer.from(part as string, "latin1"))));
  return path;
}

function uint64(value: bigint): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(value);
  return bytes;
}

/** A safetensors file of one tensor, float32 [2]. */
function safetensors(name: string, tensor: string, metadata: Record<string, string> = {}): string {
  const header = JSON.stringify({
    __metadata__: metadata,
    [tensor]: { dtype: "F32", shape: [2], data_offsets: [0, 8] },
  });
  return write(name, uint64(BigInt(Buffer.byteLength(header))), Buffer.from(header), Buffer.alloc(8));
}

test("a torch file: columns, metadata and totals", async () => {
  const path = golden("minigpt4.pth");
  const { code, stdout, stderr } = await minigpt4(["inspect", path]);
  expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  const lines = stdout.split("\n");
  expect(lines[0]).toBe(`${path}: torch`);
  expect(lines).toContain("  epoch      3");
  expect(stdout).toMatch(
    /^ {2}optimizer {2}\{"state":\{"0":\{"step":"tensor float32 \[\]".{10,200}\.\.\. \(\d+ characters\)$/m,
  );
  expect(stdout).toContain(
    [
      "Tensors",
      "  llama_proj.weight  float32  [64, 48]  12.3 kB",
      "  llama_proj.bias    float32  [64]        256 B",
      "",
      "2 tensors, 3,136 parameters, 12.5 kB",
      "",
    ].join("\n"),
  );
});

test("a sharded folder as JSON, filtered", async () => {
  const filter = "layers.1.self_attn";
  const { stdout } = await minigpt4(["inspect", golden("llama-safetensors"), "--json", "--filter", filter]);
  const found = JSON.parse(stdout);
  expect(found).toMatchObject({ format: "safetensors", parameters: 4 * 64 * 64, bytes: 4 * 64 * 64 * 2 });
  expect(found.tensors).toHaveLength(4);
  expect(found.tensors).toContainEqual({
    name: "model.layers.1.self_attn.q_proj.weight",
    storedType: "F16",
    shape: [64, 64],
    byteLength: 64 * 64 * 2,
  });
});

test("truncates long metadata, and escapes control characters", async () => {
  const path = safetensors("loud.safetensors", "w\u001b[2J\u009b", { long: "x".repeat(100_000), bell: "\u0007\n" });
  const { code, stdout } = await minigpt4(["inspect", path]);
  expect(code).toBe(0);
  expect(stdout.length).toBeLessThan(1000);
  expect(stdout).toContain("... (100000 characters)");
  expect(stdout).toContain("w\\u001b[2J\\u009b");
  expect(stdout.replaceAll("\n", "")).not.toMatch(/\p{Cc}/u);
});

test("GGUF: integers above 2^53 are exact; long lists are truncated", async () => {
  const path = join(import.meta.dirname, "..", "formats", "fixtures", "blocks.gguf");
  const { stdout } = await minigpt4(["inspect", path]);
  expect(stdout).toMatch(/^ {2}big +1152921504606846976$/m);
  const { stdout: json } = await minigpt4(["inspect", path, "--json"]);
  expect(JSON.parse(json).metadata).toMatchObject({ big: "1152921504606846976", flag: true });
});

test("GGUF: shows how each type is used", async () => {
  const path = join(import.meta.dirname, "..", "formats", "fixtures", "quantised.gguf");
  const { stdout } = await minigpt4(["inspect", path]);
  expect(stdout).toMatch(/^ {2}Q5_1 +144 B {2}used without rounding, in 8-bit blocks of 32$/m);
  expect(stdout).toMatch(/^ {2}Q6_K +420 B {2}used without rounding, in 8-bit blocks of 16$/m);
  expect(stdout).toMatch(/^ {2}IQ4_XS +136 B {2}cannot be read yet$/m);
});

describe("damaged and malicious files are reported in one line", () => {
  const whole = readFileSync(golden("llama-safetensors/model-00001-of-00003.safetensors"));
  const touched = join(folder, "touched");
  test.each([
    ["truncated safetensors", write("cut.safetensors", whole.subarray(0, whole.length - 100)), "cut.safetensors"],
    ["a header of 2^60 bytes", write("claims.safetensors", uint64(2n ** 60n), "{}"), "1152921504606846976"],
    ["a pickle that calls os.system", write("evil.pth", `cos\nsystem\n(S'touch ${touched}'\ntR.`), "evil.pth"],
    ["a GGUF with a wrong count", write("count.gguf", "GGUF\x03\0\0\0", uint64(2n ** 40n), uint64(0n)), "count.gguf"],
  ])("%s", async (_, path, message) => {
    const { code, stdout, stderr } = await minigpt4(["inspect", path]);
    expect({ code, stdout }).toEqual({ code: 1, stdout: "" });
    expect(stderr.trimEnd().split("\n")).toHaveLength(1);
    expect(stderr).toMatch(/^error: /);
    expect(stderr).toContain(path);
    expect(stderr).toContain(message);
    expect(existsSync(touched)).toBe(false);
  });
});
