/**
 * Prefill of long prompts with a second copy of the layers in int8, with a scale for each row. Prefill is bound by arithmetic,
 * and the runtime multiplies int8 about three times as fast as 4-bit blocks; decoding is bound by reading weights, which
 * take half the bytes in 4 bits. The copy stays on disk: one layer at a time is mapped.
 */
import type { Checkpoint } from "../formats/open.ts";
import type { LlamaConfig } from "../models/llama.ts";
import { cachedLayerPiece, logitsPiece } from "../models/llama-layers.ts";
import { embedSequence } from "../models/minigpt4.ts";
import { rotaryAngles } from "../nn/positions.ts";
import { Weights } from "../nn/weights.ts";
import { Session, type SessionOptions } from "../runtime/session.ts";
import type { NdArray } from "../tensor/array.ts";
import { Graph } from "../tensor/graph.ts";
import { native } from "../tensor/quant/quantization.ts";
import type { KVCache } from "./kv-cache.ts";
import { decoderFeeds, indices, type Position, type Prefiller, sequenceInputs } from "./language-model.ts";

export interface PrefillSources {
  /** A folder that contains both. */
  readonly folder: string;
  /** The language model; its embeddings and output layer are used. */
  readonly llm: Checkpoint;
  /** Its layers in int8. */
  readonly layers: Checkpoint;
}

/** Positions per pass. Longer chunks gain little, and attention costs the square of their length. */
const chunkLength = 256;

type LayerOutput = "out" | "newKeys" | "newValues";
type LayerModel = Session<LayerOutput>;

/** The prefiller of a language model whose folder has its layers in int8. */
export class Prefill implements Prefiller {
  private readonly config: LlamaConfig;
  private readonly parts: Parts;
  private readonly rotary: ReturnType<typeof rotaryAngles>;

  private constructor(config: LlamaConfig, parts: Parts) {
    this.config = config;
    this.parts = parts;
    this.rotary = rotaryAngles(config.maxPositionEmbeddings, config.headDim, config.ropeTheta);
  }

  /** The sources may be closed afterwards. */
  static async create(sources: PrefillSources, config: LlamaConfig, options: SessionOptions): Promise<Prefill> {
    const { folder, llm } = sources;
    const model = (index: number, outputs: "all" | "selected" = "all") => {
      const layerOptions = { index, quantization: native, mapped: true, outputs };
      const { graph, out, keys, values } = cachedLayerPiece(sources.layers, config, layerOptions);
      const mapped = { ...options, weightsFolder: folder, storage: "mapped" } as const;
      return Session.create<LayerOutput>(graph, { out, newKeys: keys, newValues: values }, mapped);
    };
    const last = config.numHiddenLayers - 1;
    const layers: LayerModel[] = [];
    for (let i = 0; i < last; i++) layers.push(await model(i));
    const graph = new Graph();
    const weights = new Weights(graph, llm, { quantization: native });
    const embeddings = embedSequence(weights, sequenceInputs(graph, config), config);
    const output = logitsPiece(llm, config, { quantization: native });
    // Lengths vary, so a memory plan does not help; a second thread would spin while the layers need its core.
    const own = { ...options, threads: 1, plansMemory: false, weightsFolder: folder };
    return new Prefill(config, {
      embeddings: await Session.create(graph, { embeddings }, own),
      layers,
      last: await model(last, "selected"),
      output: await Session.create(output.graph, { logits: output.out }, own),
    });
  }

  async forward(sequence: readonly Position[], cache: KVCache): Promise<NdArray<"float32">> {
    const start = Math.floor((sequence.length - 1) / chunkLength) * chunkLength;
    await this.prefill(sequence.slice(0, start), cache);
    const x = await this.forwardChunk(sequence.slice(start), cache);
    return (await this.parts.output.run({ x })).logits as NdArray<"float32">;
  }

  async prefill(sequence: readonly Position[], cache: KVCache): Promise<void> {
    for (let start = 0; start < sequence.length; start += chunkLength) {
      await this.forwardChunk(sequence.slice(start, start + chunkLength), cache);
    }
  }

  /** Hidden state of the last position after the last layer, [1, hiddenSize]. */
  private async forwardChunk(sequence: readonly Position[], cache: KVCache): Promise<NdArray> {
    const { ids, imageTokens, imageIndices, positions, pastMask, ...past } = decoderFeeds(
      [sequence],
      cache,
      this.config,
    );
    const { embeddings, layers, last } = this.parts;
    let x = (await embeddings.run({ ids, imageTokens, imageIndices } as Feeds)).embeddings;
    const added: Record<string, NdArray> = {};
    const shared = { positions, pastMask, ...this.rotary };
    for (const [i, layer] of [...layers, last].entries()) {
      const feeds = { ...shared, keys: past[`keys.${i}`], values: past[`values.${i}`], x } as Feeds;
      if (layer === last) feeds.outputIndices = indices([1], [sequence.length - 1]);
      const { out, newKeys, newValues } = await layer.run(feeds);
      added[`newKeys.${i}`] = newKeys;
      added[`newValues.${i}`] = newValues;
      x = out;
    }
    cache.append(added, sequence.length);
    return x;
  }

  async close(): Promise<void> {
    await this.parts.embeddings.close();
    await this.parts.output.close();
  }
}

interface Parts {
  readonly embeddings: Session<"embeddings">;
  /** All layers but the last. */
  readonly layers: readonly LayerModel[];
  /** The last layer, which computes only the last position. */
  readonly last: LayerModel;
  readonly output: Session<"logits">;
}

type Feeds = Record<string, NdArray>;
