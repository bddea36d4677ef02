import { expect, test } from "vitest";
import { largestInt8Weight, parseCpuFlags, thisCpu } from "../../../src/tensor/quant/cpu.ts";

const x64 = (...flags: string[]) => largestInt8Weight({ arch: "x64", flags: new Set(flags) });

test("weights use 8 bits where products accumulate in 32 bits, and 7 where they would overflow in 16", () => {
  expect(x64("avx2", "avx512f", "avx512_vnni")).toBe(127);
  expect(x64("avx2", "avx_vnni")).toBe(127);
  expect(x64("amx_int8")).toBe(127);
  expect(x64("avx2", "avx512f", "avx512bw")).toBe(64);
  expect(largestInt8Weight({ arch: "x64", flags: undefined })).toBe(64);
  expect(largestInt8Weight({ arch: "arm64", flags: undefined })).toBe(127);
});

test("two products of the largest bytes fit into 16 bits with the smaller weights only", () => {
  expect(2 * 255 * 64).toBeLessThan(2 ** 15);
  expect(2 * 255 * 127).toBeGreaterThan(2 ** 15);
});

test("parses the flags of the first processor", () => {
  const cpuinfo = "processor\t: 0\nmodel name\t: X\nflags\t\t: fpu avx2 avx_vnni\nbugs\t\t: none\n\nprocessor\t: 1\n";
  expect(parseCpuFlags(cpuinfo)).toEqual(new Set(["fpu", "avx2", "avx_vnni"]));
  expect(parseCpuFlags("processor : 0\nFeatures : fp asimd\n")).toBeUndefined();
  expect(thisCpu().arch).toBe(process.arch);
});
