/** The environment of ONNX Runtime: devices, large memory pages, telemetry. Import this file before a session is created. */
import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { listSupportedBackends } from "onnxruntime-node";

// ONNX Runtime 1.29 and later send telemetry by default on Linux and macOS. Keep a value that the user has set.
process.env.ORT_DISABLE_TELEMETRY ??= "1";

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

/** The execution providers of a device, in order of preference. @throws Error if this build of ONNX Runtime does not support the device */
export function executionProviders(device: Device): string[] {
  if (device === "cpu") return ["cpu"];
  if (device === "auto") return hasCudaLibraries() ? ["cuda", "cpu"] : ["cpu"];
  const supported = listSupportedBackends().map(({ name }) => name);
  if (!supported.includes(device)) {
    throw new Error(
      `Device "${device}" is not supported by this build of ONNX Runtime; supported: ${supported.join(", ")}`,
    );
  }
  return [device, "cpu"];
}

/** The runtime lists CUDA as supported even if its libraries, a separate download, are missing. */
function hasCudaLibraries(): boolean {
  const entry = createRequire(import.meta.url).resolve("onnxruntime-node/package.json");
  const library = process.platform === "win32" ? "onnxruntime_providers_cuda.dll" : "libonnxruntime_providers_cuda.so";
  return existsSync(join(dirname(entry), "bin", "napi-v6", process.platform, process.arch, library));
}

const largePages = "glibc.malloc.hugetlb";

/**
 * Adds the setting that makes glibc request memory pages of 2 MB, unless it is already set. It takes effect when a process starts; other
 * platforms ignore it.
 *
 * Decoding reads all weights for each token. With pages of 4 kB, address translation takes up to a seventh of the time.
 */
export function withLargePages(environment: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  const tunables = environment.GLIBC_TUNABLES;
  if (tunables?.includes(largePages)) return environment;
  return { ...environment, GLIBC_TUNABLES: tunables ? `${tunables}:${largePages}=1` : `${largePages}=1` };
}
