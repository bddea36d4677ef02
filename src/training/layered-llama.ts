/**
 * A frozen language model that is read and differentiated one layer at a time: gradient checkpointing (Chen et al.,
 * arXiv 1604.06174) at every layer, with the weights of one layer in memory. What is kept of the way forward is the input of
 * each layer; the way back computes a layer once more.
 */
import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { checkDiskSpace } from "../files/journal.ts";
import { type LlamaConfig, llamaMatrices } from "../models/llama.ts";
import { headPiece, layerPiece, type Piece } from "../models/llama-layers.ts";
import { type SessionOptions, StoredModels } from "../runtime/session.ts";
import { type NdArray, ndarray, sizeOf } from "../tensor/array.ts";
import { gradients } from "../tensor/grad/gradients.ts";
import type { Value } from "../tensor/graph.ts";
import { reduceSum } from "../tensor/ops/reduce.ts";
import { quantizationPolicy } from "../tensor/quant/quantization.ts";
import type { WeightSource } from "../tensor/weight-source.ts";

export interface LayeredOptions {
  /** Where the layers are kept while they are in use; what is there is replaced. */
  readonly folder: string;
  /** Arithmetic of the products. In int8 a layer takes two bytes for each weight, in float32 four. */
  readonly precision: "float32" | "int8";
  /** Positions of the longest sequence. */
  readonly positions: number;
  readonly session?: SessionOptions;
  readonly signal?: AbortSignal | undefined;
  /** Layers that are ready, of all. */
  readonly onProgress?: ((done: number, total: number) => void) | undefined;
}

/** What the layers and the head are told of a batch; see `layerPiece` and `headPiece`. */
type Feeds = Readonly<Record<string, NdArray>>;

type LayerModels = { readonly forward: "out"; readonly backward: "gradient" };
type HeadModels = { readonly forward: "losses"; readonly backward: "losses" | "gradient" };

export class LayeredLlama {
  private readonly options: LayeredOptions;
  private readonly layers: readonly StoredModels<LayerModels>[];
  private readonly head: StoredModels<HeadModels>;

  private constructor(
    options: LayeredOptions,
    layers: readonly StoredModels<LayerModels>[],
    head: StoredModels<HeadModels>,
  ) {
    this.options = options;
    this.layers = layers;
    this.head = head;
  }

  /** Writes each layer as the engine takes it. @throws Error if the disk has not room enough */
  static async create(source: WeightSource, config: LlamaConfig, options: LayeredOptions): Promise<LayeredLlama> {
    const { folder, precision, positions, onProgress, signal } = options;
    await rm(folder, { recursive: true, force: true });
    await mkdir(folder, { recursive: true });
    try {
      await checkDiskSpace(folder, layeredBytes(source, precision));
      const quantization = quantizationPolicy(precision, llamaMatrices);
      const count = config.numHiddenLayers;
      const layers: StoredModels<LayerModels>[] = [];
      for (let i = 0; i < count; i++) {
        signal?.throwIfAborted();
        const piece = () => layerPiece(source, { ...config, positions }, { index: i, quantization });
        const [forward, backward] = [piece(), piece()];
        layers.push(
          await StoredModels.write<LayerModels>(await pieceFolder(folder, `layer-${i}`), {
            forward: { graph: forward.graph, outputs: { out: forward.out } },
            backward: { graph: backward.graph, outputs: { gradient: backwardOf(backward) } },
          }),
        );
        onProgress?.(i + 1, count + 1);
      }
      const headOf = () => headPiece(source, config, { quantization });
      const [forward, backward] = [headOf(), headOf()];
      const head = await StoredModels.write<HeadModels>(await pieceFolder(folder, "head"), {
        forward: { graph: forward.graph, outputs: { losses: forward.out } },
        backward: { graph: backward.graph, outputs: { losses: backward.out, gradient: backwardOf(backward) } },
      });
      onProgress?.(count + 1, count + 1);
      return new LayeredLlama(options, layers, head);
    } catch (error) {
      await rm(folder, { recursive: true, force: true });
      throw error;
    }
  }

  /** The negative log-likelihood of each target token, [targets]. @param embeddings [batch, sequence, hiddenSize] */
  async losses(embeddings: NdArray, feeds: Feeds): Promise<Float32Array> {
    let x = embeddings;
    for (const layer of this.layers) x = await this.forward(layer, x, feeds);
    const { losses } = await this.head.with("forward", this.session, (session) => session.run({ ...feeds, x }));
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
    const atHead = await this.head.with("backward", this.session, (session) =>
      session.run({ ...feeds, x, [outGradient]: shares }),
    );
    let { gradient } = atHead;
    for (const layer of this.layers.toReversed()) {
      const feed = { ...feeds, x: inputs.pop() as NdArray, [outGradient]: gradient };
      this.options.signal?.throwIfAborted();
      ({ gradient } = await layer.with("backward", this.session, (session) => session.run(feed)));
    }
    const loss = (atHead.losses.data as Float32Array).reduce((sum, value) => sum + value, 0) * share;
    return { loss, gradient };
  }

  /** Removes the layers from the disk. */
  async close(): Promise<void> {
    await rm(this.options.folder, { recursive: true, force: true, maxRetries: 3 });
  }

  private async forward(layer: StoredModels<LayerModels>, x: NdArray, feeds: Feeds): Promise<NdArray> {
    this.options.signal?.throwIfAborted();
    return (await layer.with("forward", this.session, (session) => session.run({ ...feeds, x }))).out;
  }

  /** Ever new shapes gain nothing from a plan of memory. */
  private get session(): SessionOptions {
    return { ...this.options.session, plansMemory: false };
  }
}

/** Bytes that the layers take on disk, nearly. */
export function layeredBytes({ tensors }: WeightSource, precision: LayeredOptions["precision"]): number {
  let bytes = 0;
  for (const [name, { shape }] of tensors) {
    const perWeight = precision === "int8" && llamaMatrices.activationBits(name) !== undefined ? 2 : 4;
    bytes += sizeOf(shape) * perWeight;
  }
  return bytes;
}

/** The input that the gradient of a piece's output is. */
const outGradient = "outGradient";

/** The gradient with respect to a piece's `x`, from that of its output. */
function backwardOf({ graph, x, out }: Piece): Value {
  const received = graph.input(outGradient, "float32", out.shape);
  const axes = out.shape.map((_, axis) => axis);
  const [gradient] = gradients(reduceSum(out.mul(received), axes, { keep: false }), [x]);
  return gradient as Value;
}

async function pieceFolder(parent: string, name: string): Promise<string> {
  const folder = join(parent, name);
  await mkdir(folder);
  return folder;
}
