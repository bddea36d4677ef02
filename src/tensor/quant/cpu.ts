/** What the processor's 8-bit arithmetic allows. */

/** A processor as far as 8-bit products depend on it. */
export interface Cpu {
  /** As `process.arch` has it. */
  readonly arch: string;
  /** Names of its instruction sets as Linux lists them; undefined where nothing tells. */
  readonly flags: ReadonlySet<string> | undefined;
}

/**
 * The largest magnitude that a weight may have in a product of unsigned and signed bytes: 127, or 64 where it would overflow.
 *
 * x64 processors multiply bytes with `vpdpbusd` (VNNI) or with AMX, which add in 32 bits. Older ones have `vpmaddubsw`,
 * which adds two products in 16 bits and cuts off what does not fit: 2 * 255 * 127 does not, 2 * 255 * 64 does. ONNX Runtime
 * uses it as it is. ARM adds in 32 bits.
 */
export function largestInt8Weight({ arch, flags }: Cpu): 64 | 127 {
  if (arch !== "x64") return 127;
  return ["avx512_vnni", "avx_vnni", "amx_int8"].some((flag) => flags?.has(flag)) ? 127 : 64;
}

let known: Cpu | undefined;

/** The processor that this process runs on. Only Linux tells which instruction sets it has. In a browser it is WebAssembly's, which adds in 32 bits. */
export function thisCpu(): Cpu {
  if (typeof process === "undefined") return { arch: "wasm", flags: undefined };
  known ??= { arch: process.arch, flags: process.platform === "linux" ? linuxFlags() : undefined };
  return known;
}

function linuxFlags(): ReadonlySet<string> | undefined {
  try {
    // Asked for here, as an import would keep this file out of browsers.
    return flagsOf(process.getBuiltinModule("node:fs").readFileSync("/proc/cpuinfo", "utf8"));
  } catch {
    return undefined; // Some containers hide it.
  }
}

/** The flags of the first processor in the text of `/proc/cpuinfo`; undefined if it lists none. */
export function flagsOf(cpuinfo: string): ReadonlySet<string> | undefined {
  const line = /^flags\s*:(.*)$/m.exec(cpuinfo)?.[1];
  return line === undefined ? undefined : new Set(line.trim().split(/\s+/));
}
