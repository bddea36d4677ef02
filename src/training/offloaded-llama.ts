/**
 * A frozen language model whose layers lie on disk, with one of them in memory at a time. Gradient checkpointing (Chen et
 * al., arXiv 1604.06174) at every layer: the forward pass keeps the input of each layer, the backward pass computes the
 * layer again.
 */
import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { checkDiskSpace } from "../files/journal.ts";
import { type LlamaConfig, llamaMatrices } from "../models/llama.ts";
import { headPiece, layerPiece, type Piece } from "../models/llama-layers.ts";
import { ConstantsFile } from "../runtime/model-files.ts";
import { type CreateOptions, Session, type SessionOptions } from "../runtime/session.ts";
import { type NdArray, ndarray, sizeOf } from "../tensor/array.ts";
import { gradients } from "../tensor/grad/gradients.ts";
import type { Value } from "../tensor/graph.ts";
import { reduceSum } from "../tensor/ops/reduce.ts";
import { quantizationPolicy } from "../tensor/quant/quantization.ts";
import type { WeightSource } from "../tensor/weight-source.ts";
import type { Feeds } from "./stages/stage.ts";

export interface OffloadedLlamaOptions {
  /** Folder of the layers while they are in use; its contents are replaced. */
  readonly folder: string;
  /** Quantization of the matrix products. A layer takes 2 bytes a weight in int8, 4 in float32. */
  readonly quantization: "float32" | "int8";
  /** Positions of the longest sequence. */
  readonly positions: number;
  readonly session?: SessionOptions;
  readonly signal?: AbortSignal;
  /** Layers that are written, and all. */
  readonly onProgress?: (done: number, total: number) => void;
}

interface Layer {
  readonly forward: Session<"out">;
  readonly backward: Session<"gradient">;
}

interface Head {
  readonly forward: Session<"losses">;
  readonly backward: Session<"losses" | "gradient">;
}

export class OffloadedLlama {
  private readonly options: OffloadedLlamaOptions;
  private readonly layers: readonly Layer[];
  private readonly head: Head;

  private constructor(options: OffloadedLlamaOptions, layers: readonly Layer[], head: Head) {
    this.options = options;
    this.layers = layers;
    this.head = head;
  }

  /** Writes each layer as models. @throws Error if the disk is full */
  static async create(
    source: WeightSource,
    config: LlamaConfig,
    options: OffloadedLlamaOptions,
  ): Promise<OffloadedLlama> {
    const { folder, quantization, positions, onProgress, signal } = options;
    await rm(folder, { recursive: true, force: true });
    await mkdir(folder, { recursive: true });
    try {
      await checkDiskSpace(folder, layerBytes(source, quantization));
      const policy = quantizationPolicy(quantization, llamaMatrices);
      const count = config.numHiddenLayers;
      const layers: Layer[] = [];
      // Memory planning does not pay off where shapes change from batch to batch.
      const session = { ...options.session, plansMemory: false };
      for (let i = 0; i < count; i++) {
        signal?.throwIfAborted();
        const piece = () => layerPiece(source, { ...config, positions }, { index: i, quantization: policy });
        const [forward, backward] = [piece(), piece()];
        const layer = await writeModels(join(folder, `layer-${i}`), session, async (on) => ({
          forward: await Session.create(forward.graph, { out: forward.out }, on("forward.onnx")),
          backward: await Session.create(backward.graph, { gradient: inputGradient(backward) }, on("backward.onnx")),
        }));
        layers.push(layer);
        onProgress?.(i + 1, count + 1);
      }
      const makeHead = () => headPiece(source, config, { quantization: policy });
      const [forward, backward] = [makeHead(), makeHead()];
      const head: Head = await writeModels(join(folder, "head"), session, async (on) => ({
        forward: await Session.create(forward.graph, { losses: forward.out }, on("forward.onnx")),
        backward: await Session.create(
          backward.graph,
          { losses: backward.out, gradient: inputGradient(backward) },
          on("backward.onnx"),
        ),
      }));
      onProgress?.(count + 1, count + 1);
      return new OffloadedLlama(options, layers, head);
    } catch (error) {
      await rm(folder, { recursive: true, force: true });
      throw error;
    }
  }

  /** The negative log-likelihood of each target token, [targets]. @param embeddings [batch, sequence, hiddenSize] */
  async losses(embeddings: NdArray, feeds: Feeds): Promise<Float32Array> {
    let x = embeddings;
    for (const layer of this.layers) x = await this.forward(layer, x, feeds);
    const { losses } = await this.head.forward.run({ ...feeds, x });
    return losses.data as Float32Array;
  }

  /** The sum of the targets' losses, each times `share`, and its gradient with respect to the embeddings. */
  async gradient(
    embeddings: NdArray,
    feeds: Feeds,
    share: number,
  ): Promise<{ readonly loss: number; readonly gradient: NdArray }> {
    const inputs: NdArray[] = [];
    let x = embeddings;
    for (const layer of this.layers) {
      inputs.push(x);
      x = await this.forward(layer, x, feeds);
    }
    const targets = feeds.targetIds?.shape ?? [];
    const shares = ndarray("float32", targets, new Float32Array(sizeOf(targets)).fill(share));
    const atHead = await this.head.backward.run({ ...feeds, x, [outGradient]: shares });
    let { gradient } = atHead;
    for (const layer of this.layers.toReversed()) {
      const feed = { ...feeds, x: inputs.pop() as NdArray, [outGradient]: gradient };
      this.options.signal?.throwIfAborted();
      ({ gradient } = await layer.backward.run(feed));
    }
    const loss = (atHead.losses.data as Float32Array).reduce((sum, value) => sum + value, 0) * share;
    return { loss, gradient };
  }

  /** Removes the layers from the disk. */
  async close(): Promise<void> {
    await rm(this.options.folder, { recursive: true, force: true, maxRetries: 3 });
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  private async forward(layer: Layer, x: NdArray, feeds: Feeds): Promise<NdArray> {
    this.options.signal?.throwIfAborted();
    return (await layer.forward.run({ ...feeds, x })).out;
  }
}

/** Approximate size of the layers on disk in bytes. */
export function layerBytes({ tensors }: WeightSource, quantization: OffloadedLlamaOptions["quantization"]): number {
  let bytes = 0;
  for (const [name, { shape }] of tensors) {
    const perWeight = quantization === "int8" && llamaMatrices.activationBits(name) !== undefined ? 2 : 4;
    bytes += sizeOf(shape) * perWeight;
  }
  return bytes;
}

/** Input for the gradient with respect to a piece's output. */
const outGradient = "outGradient";

/** The gradient with respect to a piece's `x`, from that of its output. */
function inputGradient({ graph, x, out }: Piece): Value {
  const outputGradient = graph.input(outGradient, "float32", out.shape);
  const axes = out.shape.map((_, axis) => axis);
  const [gradient] = gradients(reduceSum(out.mul(outputGradient), axes, { keep: false }), [x]);
  return gradient as Value;
}

/** Writes models that share their constants into a new folder. @param write `on` gives the options of a session by the name of its file */
async function writeModels<T>(
  folder: string,
  session: SessionOptions,
  write: (on: (name: string) => CreateOptions) => Promise<T>,
): Promise<T> {
  await mkdir(folder);
  const constants = await ConstantsFile.create(folder);
  try {
    return await write((name) => ({ ...session, storage: { model: join(folder, name), constants } }));
  } finally {
    await constants.close();
  }
}
