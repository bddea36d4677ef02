/**
 * Reading long prompts through a second copy of the layers, in bytes with a scale for each row. Many positions at once are limited by
 * arithmetic, and the engine multiplies bytes some three times as fast as blocks of 4 bits; one position is limited by the
 * reading of weights, of which 4 bits are half as many. The copy stays on the disk: one layer at a time is mapped from there.
 */
import type { Checkpoint } from "../checkpoints/checkpoint.ts";
import type { LlamaConfig } from "../models/llama.ts";
import { cachedLayerPiece } from "../models/llama-layers.ts";
import { embedSequence } from "../models/minigpt4.ts";
import { rotaryAngles } from "../nn/rotary.ts";
import { asStored, Weights } from "../nn/weights.ts";
import type { NdArray } from "../tensor/array.ts";
import { Graph } from "../tensor/graph.ts";
import { MappedModel } from "../tensor/mapped-model.ts";
import { Session, type SessionOptions } from "../tensor/session.ts";
import type { KVCache } from "./kv-cache.ts";
import { type Position, readingFeeds } from "./reading-feeds.ts";
import { sequenceInputs } from "./reading-graph.ts";

export interface PrefillSources {
  /** A folder that both lie in. */
  readonly folder: string;
  /** The language model, of which the table of embeddings is used. */
  readonly llm: Checkpoint;
  /** Its layers in bytes. */
  readonly layers: Checkpoint;
}

/** Positions that go through the layers at once. More gain little from it, and each sees all others before they are masked. */
const pieceLength = 256;

type LayerModel = MappedModel<"out" | "newKeys" | "newValues">;

export class Prefill {
  private readonly config: LlamaConfig;
  private readonly embeddings: Session<"embeddings">;
  private readonly layers: readonly LayerModel[];
  private readonly rotary: ReturnType<typeof rotaryAngles>;

  private constructor(config: LlamaConfig, embeddings: Session<"embeddings">, layers: readonly LayerModel[]) {
    this.config = config;
    this.embeddings = embeddings;
    this.layers = layers;
    this.rotary = rotaryAngles(config.maxPositionEmbeddings, config.headDim, config.ropeTheta);
  }

  static async create(sources: PrefillSources, config: LlamaConfig, options: SessionOptions): Promise<Prefill> {
    const { folder } = sources;
    const layers: LayerModel[] = [];
    for (let i = 0; i < config.numHiddenLayers; i++) {
      const { graph, x, out, keys, values } = cachedLayerPiece(sources.layers, i, config, {
        ...asStored(sources.layers),
        mapped: true,
      });
      // Of the last layer nobody reads what comes out.
      const hidden = i < config.numHiddenLayers - 1 ? out : x;
      layers.push(await MappedModel.create(graph, { out: hidden, newKeys: keys, newValues: values }, folder, options));
    }
    const graph = new Graph();
    const weights = new Weights(graph, sources.llm, asStored(sources.llm));
    const embeddings = embedSequence(weights, sequenceInputs(graph, config), config);
    // Ever new lengths gain nothing from a plan of memory, and a second thread would wait busily while the layers need its core.
    const own = { ...options, threads: 1, plansMemory: false, weightsFolder: folder };
    return new Prefill(config, await Session.create(graph, { embeddings }, own), layers);
  }

  /** Reads new positions of the cache's one sequence, which it grows by. */
  async read(sequence: readonly Position[], cache: KVCache): Promise<void> {
    for (let start = 0; start < sequence.length; start += pieceLength) {
      await this.readPiece(sequence.slice(start, start + pieceLength), cache);
    }
  }

  private async readPiece(sequence: readonly Position[], cache: KVCache): Promise<void> {
    const { ids, imageTokens, imagePlaces, positions, pastMask, ...past } = readingFeeds(
      [sequence],
      cache,
      this.config,
    );
    let x = (await this.embeddings.run({ ids, imageTokens, imagePlaces } as Feeds)).embeddings;
    const read: Record<string, NdArray> = {};
    for (const [i, layer] of this.layers.entries()) {
      const feeds = { positions, pastMask, keys: past[`keys.${i}`], values: past[`values.${i}`], ...this.rotary, x };
      const { out, newKeys, newValues } = await layer.run(feeds as Feeds);
      read[`newKeys.${i}`] = newKeys;
      read[`newValues.${i}`] = newValues;
      x = out;
    }
    cache.append(read, sequence.length);
  }

  release(): Promise<void> {
    return this.embeddings.release();
  }
}

type Feeds = Record<string, NdArray>;
