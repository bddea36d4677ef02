/** Where a session computes: ONNX Runtime's execution providers under the names that users know. */
import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { listSupportedBackends } from "onnxruntime-node";

/**
 * Devices that models run on. `auto` is CUDA where its libraries are installed, else the CPU.
 *
 * @example
 * ```ts
 * import { devices, MiniGPT4 } from "minigpt4";
 *
 * const device = devices.find((name) => name === process.env.DEVICE) ?? "auto";
 * await using model = await MiniGPT4.load("nano", { device });
 * console.log(await model.describe("cat.jpg"));
 * ```
 */
export const devices = ["auto", "cpu", "cuda", "webgpu", "dml", "coreml"] as const;
export type Device = (typeof devices)[number];

/** The execution providers of a device, best first. @throws Error if this build of ONNX Runtime lacks the device. */
export function executionProviders(device: Device): string[] {
  if (device === "cpu") return ["cpu"];
  if (device === "auto") return hasCudaLibraries() ? ["cuda", "cpu"] : ["cpu"];
  const supported = listSupportedBackends().map(({ name }) => name);
  if (!supported.includes(device)) {
    throw new Error(`Device "${device}" is not in this build of ONNX Runtime; it has: ${supported.join(", ")}`);
  }
  return [device, "cpu"];
}

/** CUDA is listed as supported even where its libraries, a separate download, are missing. */
function hasCudaLibraries(): boolean {
  const entry = createRequire(import.meta.url).resolve("onnxruntime-node/package.json");
  const library = process.platform === "win32" ? "onnxruntime_providers_cuda.dll" : "libonnxruntime_providers_cuda.so";
  return existsSync(join(dirname(entry), "bin", "napi-v6", process.platform, process.arch, library));
}

// * Memory in pages of 2 MB. A language model that writes reads all of its weights for each token; in pages of 4 kB, looking up where they lie
// takes the processor up to a seventh of the time. Linux gives large pages to memory that asks for them, and glibc asks if it was told to when its
// process began: so this is an environment to start a process with, which on other systems changes nothing.

const name = "glibc.malloc.hugetlb";

/** A process's environment, with large pages; whoever has set how glibc does that decides. */
export function withLargePages(environment: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  const tunables = environment.GLIBC_TUNABLES ?? "";
  if (tunables.includes(name)) return environment;
  return { ...environment, GLIBC_TUNABLES: [...(tunables ? [tunables] : []), `${name}=1`].join(":") };
}

/**
 * ONNX Runtime's telemetry is turned off, which from 1.29 on is on by default on Linux and macOS; whoever sets the variable
 * decides. Imported before a session is made.
 */
process.env.ORT_DISABLE_TELEMETRY ??= "1";
