/**
 * Models in a browser, on ONNX Runtime Web: load what `minigpt4 export web` wrote, in the page or in a worker.
 *
 * `onnxruntime-web` is a peer dependency: install it next to this package, and pass the build that the page needs.
 *
 * @example
 * ```ts
 * import * as ort from "onnxruntime-web/webgpu";
 * import { loadModel } from "minigpt4/browser";
 *
 * const model = await loadModel("/models/nano/", { ort });
 * const image = await (await fetch("/cat.jpg")).blob();
 * console.log(await model.describe(image));
 * ```
 *
 * @module minigpt4/browser
 */
export { MiniGPT4Error, RequestError } from "../errors.ts";
export { type BrowserImage, BrowserModel } from "./browser-model.ts";
export type { Fetch, LoadProgress } from "./files.ts";
export { connectModel, type LoadModelOptions, loadModel } from "./load-model.ts";
export { type BrowserDevice, detectDevice, type OrtModule, type Placement } from "./ort-runner.ts";
export { type ConnectOptions, type ModelWorker, serveModel } from "./worker.ts";
