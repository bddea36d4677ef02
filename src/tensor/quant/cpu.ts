/** Limits of the processor's 8-bit arithmetic. */

/** The properties of a processor that 8-bit products depend on. */
export interface Cpu {
  /** A value of `process.arch`, or "wasm". */
  readonly arch: string;
  /** Names of its instruction sets as in Linux's `/proc/cpuinfo`; undefined if unknown. */
  readonly flags?: ReadonlySet<string>;
}

/**
 * The largest magnitude of a weight in a product of unsigned and signed bytes: 127, or 64 where larger ones would overflow.
 *
 * x64 processors multiply bytes with `vpdpbusd` (VNNI) or AMX, which accumulate in 32 bits. Older ones use `vpmaddubsw`, which adds
 * two products in 16 bits and saturates: 2 * 255 * 127 overflows, 2 * 255 * 64 does not. ONNX Runtime does not compensate for that.
 * ARM accumulates in 32 bits.
 */
export function largestInt8Weight({ arch, flags }: Cpu): 64 | 127 {
  if (arch !== "x64") return 127;
  return ["avx512_vnni", "avx_vnni", "amx_int8"].some((flag) => flags?.has(flag)) ? 127 : 64;
}

let known: Cpu | undefined;

/** The processor of this process; its flags are known on Linux only. In a browser it is WebAssembly, which accumulates in 32 bits. */
export function thisCpu(): Cpu {
  if (typeof process === "undefined") return { arch: "wasm" };
  known ??= { arch: process.arch, flags: process.platform === "linux" ? linuxFlags() : undefined };
  return known;
}

function linuxFlags(): ReadonlySet<string> | undefined {
  try {
    // A static import would break this file in browsers.
    return parseCpuFlags(process.getBuiltinModule("node:fs").readFileSync("/proc/cpuinfo", "utf8"));
  } catch {
    return undefined; // Some containers hide the file.
  }
}

/** Parses the flags of the first processor from the text of `/proc/cpuinfo`; undefined if there are none. */
export function parseCpuFlags(cpuinfo: string): ReadonlySet<string> | undefined {
  const line = /^flags\s*:(.*)$/m.exec(cpuinfo)?.[1];
  return line === undefined ? undefined : new Set(line.trim().split(/\s+/));
}
