/**
 * Weight files by themselves: open safetensors, PyTorch and GGUF files, and write safetensors and PyTorch files.
 *
 * @example
 * ```ts
 * import { openCheckpoint } from "minigpt4/formats";
 *
 * await using checkpoint = await openCheckpoint("model.gguf");
 * for (const [name, { shape }] of checkpoint.tensors) console.log(name, shape);
 * ```
 *
 * @module minigpt4/formats
 */
export { type ArrayOf, type DType, type NdArray, ndarray } from "../tensor/array.ts";
export type { FileRange } from "../tensor/graph.ts";
export { type Checkpoint, openCheckpoint, type TensorInfo } from "./open.ts";
export { writeSafetensors } from "./safetensors.ts";
export { type TorchWriteOptions, writeTorch } from "./torch/write.ts";
