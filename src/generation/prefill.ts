/**
 * Reading long prompts through a second copy of the layers, in bytes with a scale for each row. Many positions at once are limited by
 * arithmetic, and the engine multiplies bytes some three times as fast as blocks of 4 bits; one position is limited by the
 * reading of weights, of which 4 bits are half as many. The copy stays on the disk: one layer at a time is mapped from there.
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
import { decoderFeeds, indices, type Position, sequenceInputs } from "./language-model.ts";

export interface PrefillSources {
  /** A folder that both lie in. */
  readonly folder: string;
  /** The language model, of which the table of embeddings is used. */
  readonly llm: Checkpoint;
  /** Its layers in bytes. */
  readonly layers: Checkpoint;
}

/** Positions that go through the layers at once. More gain little from it, and each sees all others before they are masked. */
const chunkLength = 256;

type LayerOutput = "out" | "newKeys" | "newValues";
type LayerModel = Session<LayerOutput>;

export class Prefill {
  private readonly config: LlamaConfig;
  private readonly parts: Parts;
  private readonly rotary: ReturnType<typeof rotaryAngles>;

  private constructor(config: LlamaConfig, parts: Parts) {
    this.config = config;
    this.parts = parts;
    this.rotary = rotaryAngles(config.maxPositionEmbeddings, config.headDim, config.ropeTheta);
  }

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
    const scores = logitsPiece(llm, config, { quantization: native });
    // Ever new lengths gain nothing from a plan of memory, and a second thread would wait busily while the layers need its core.
    const own = { ...options, threads: 1, plansMemory: false, weightsFolder: folder };
    return new Prefill(config, {
      embeddings: await Session.create(graph, { embeddings }, own),
      layers,
      last: await model(last, "selected"),
      scores: await Session.create(scores.graph, { scores: scores.out }, own),
    });
  }

  async forward(sequence: readonly Position[], cache: KVCache): Promise<NdArray<"float32">> {
    const start = Math.floor((sequence.length - 1) / chunkLength) * chunkLength;
    await this.prefill(sequence.slice(0, start), cache);
    const x = await this.forwardChunk(sequence.slice(start), cache);
    return (await this.parts.scores.run({ x })).scores as NdArray<"float32">;
  }

  async prefill(sequence: readonly Position[], cache: KVCache): Promise<void> {
    for (let start = 0; start < sequence.length; start += chunkLength) {
      await this.forwardChunk(sequence.slice(start, start + chunkLength), cache);
    }
  }

  /** What comes out of the last layer for the last position, [1, hiddenSize]. */
  private async forwardChunk(sequence: readonly Position[], cache: KVCache): Promise<NdArray> {
    const { ids, imageTokens, imagePlaces, positions, pastMask, ...past } = decoderFeeds(
      [sequence],
      cache,
      this.config,
    );
    const { embeddings, layers, last } = this.parts;
    let x = (await embeddings.run({ ids, imageTokens, imagePlaces } as Feeds)).embeddings;
    const read: Record<string, NdArray> = {};
    const shared = { positions, pastMask, ...this.rotary };
    for (const [i, layer] of [...layers, last].entries()) {
      const feeds = { ...shared, keys: past[`keys.${i}`], values: past[`values.${i}`], x } as Feeds;
      if (layer === last) feeds.outputIndices = indices([1], [sequence.length - 1]);
      const { out, newKeys, newValues } = await layer.run(feeds);
      read[`newKeys.${i}`] = newKeys;
      read[`newValues.${i}`] = newValues;
      x = out;
    }
    cache.append(read, sequence.length);
    return x;
  }

  async close(): Promise<void> {
    await this.parts.embeddings.close();
    await this.parts.scores.close();
  }
}

interface Parts {
  readonly embeddings: Session<"embeddings">;
  /** All layers but the last one. */
  readonly layers: readonly LayerModel[];
  /** The last layer, of which only some positions are computed. */
  readonly last: LayerModel;
  readonly scores: Session<"scores">;
}

type Feeds = Record<string, NdArray>;
