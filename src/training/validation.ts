/** The loss on pictures that are not trained on, watched during a run; the weights with the smallest one are kept. */
import type { FeatureStore } from "../data/feature-store.ts";
import { type MiniGPT4Config, tokensPerImage } from "../models/minigpt4.ts";
import type { OpenLlama } from "../models/open-llama.ts";
import type { NamedArrays } from "../models/qformer-initial.ts";
import { Weights, weightsInMemory } from "../nn/weights.ts";
import { ndarray } from "../tensor/array.ts";
import { Graph } from "../tensor/graph.ts";
import { Session, type SessionOptions } from "../tensor/session.ts";
import { batchArrays, type Piece } from "./batch.ts";
import type { Example } from "./dataset.ts";
import { tokenLosses } from "./loss.ts";

/** Pictures that are read side by side. */
const batch = 16;

export class Validation {
  private best: { loss: number; weights: NamedArrays } | undefined;
  private readonly session: Session<"losses">;
  private readonly batches: readonly Record<string, ReturnType<typeof ndarray>>[];

  private constructor(session: Session<"losses">, batches: Validation["batches"]) {
    this.session = session;
    this.batches = batches;
  }

  /**
   * @param firstRow row of `features` that holds the first example as it is; its views follow, then the next example's
   * @param parameters the trained weights' names and shapes; their values are given at each measurement
   */
  static async create(
    examples: readonly Example[],
    features: FeatureStore,
    rows: { readonly first: number; readonly views: number },
    prompt: { readonly pieces: readonly Piece[]; readonly end: readonly number[] },
    parameters: NamedArrays,
    parts: { readonly config: MiniGPT4Config; readonly llm: OpenLlama },
    options: SessionOptions,
  ): Promise<Validation> {
    const graph = new Graph();
    const trained = new Weights(graph, weightsInMemory("the weights in training", parameters), {
      trainable: () => true,
    });
    const llm = new Weights(graph, parts.llm.checkpoint);
    const losses = tokenLosses({ encoder: trained, qformer: trained, projection: trained, llm }, parts.config);
    const batches: Record<string, ReturnType<typeof ndarray>>[] = [];
    for (let start = 0; start < examples.length; start += batch) {
      const part = examples.slice(start, start + batch);
      const arrays = await features.readRows(part.map((_, i) => rows.first + (start + i) * rows.views));
      const samples = part.map(({ captions }, image) => ({
        image,
        prompt: prompt.pieces,
        answers: captions.map((ids) => [...ids, ...prompt.end]),
      }));
      batches.push(batchArrays(samples, arrays, tokensPerImage(parts.config)));
    }
    return new Validation(await Session.create(graph, { losses }, options), batches);
  }

  /** The mean loss of all tokens under `weights`, which are remembered if it is the smallest so far. */
  async measure(weights: NamedArrays): Promise<number> {
    let sum = 0;
    let count = 0;
    for (const feeds of this.batches) {
      const { losses } = await this.session.run({ ...feeds, ...weights });
      for (const loss of losses.data as Float32Array) sum += loss;
      count += losses.data.length;
    }
    const loss = sum / count;
    if (!this.best || loss < this.best.loss) {
      const copies = Object.entries(weights).map(([name, { shape, data }]) => [
        name,
        ndarray("float32", shape, data.slice()),
      ]);
      this.best = { loss, weights: Object.fromEntries(copies) };
    }
    return loss;
  }

  /** The weights with the smallest loss so far. */
  get bestWeights(): NamedArrays | undefined {
    return this.best?.weights;
  }

  release(): Promise<void> {
    return this.session.release();
  }
}
