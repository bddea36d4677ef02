/** The web worker: loads the model exported with the page with the build of ONNX Runtime Web that this browser needs. */
import { detectDevice, loadModel, type OrtModule, serveModel } from "../../src/browser/index.ts";

serveModel(async (url, onProgress) => {
  const device = await detectDevice();
  const ort = await (device === "webgpu" ? webGpuBuild() : webAssemblyBuild());
  return loadModel(url, { ort, device, onProgress });
});

async function webGpuBuild(): Promise<OrtModule> {
  const [ort, { default: wasm }] = await Promise.all([
    import("onnxruntime-web/webgpu"),
    import("onnxruntime-web/ort-wasm-simd-threaded.asyncify.wasm?url"),
  ]);
  ort.env.wasm.wasmPaths = { wasm };
  return ort;
}

async function webAssemblyBuild(): Promise<OrtModule> {
  const [ort, { default: wasm }] = await Promise.all([
    import("onnxruntime-web/wasm"),
    import("onnxruntime-web/ort-wasm-simd-threaded.wasm?url"),
  ]);
  ort.env.wasm.wasmPaths = { wasm };
  return ort;
}
