/**
 * How much a caption depends on its picture: the loss of each caption given its own picture and given every other one.
 * A model that looks finds the own picture's loss the smallest.
 */
import { KVCache } from "../chat/kv-cache.ts";
import { indices, type Position, readingFeeds } from "../chat/reading-feeds.ts";
import type { Precision } from "../chat/reading-graph.ts";
import type { OpenLlama } from "../models/open-llama.ts";
import { Session, type SessionOptions } from "../tensor/session.ts";
import { lossGraph } from "./loss-graph.ts";
import { type RankSummary, summarizeRanks } from "./ranks.ts";

/** Pictures that are read side by side; more need more memory and are hardly faster. */
const batch = 25;

/** Gives the loss of texts after pictures. Each picture and the words before the text are read once. */
export class LikelihoodScorer {
  private readonly session: Session;
  private readonly llm: OpenLlama;
  private readonly caches: KVCache[];

  private constructor(session: Session, llm: OpenLlama, caches: KVCache[]) {
    this.session = session;
    this.llm = llm;
    this.caches = caches;
  }

  /**
   * @param prompts for each picture, all positions before the text whose loss is wanted but the last one, of equal length
   */
  static async create(
    llm: OpenLlama,
    prompts: readonly (readonly Position[])[],
    { precision, ...options }: SessionOptions & { readonly precision?: Precision } = {},
  ): Promise<LikelihoodScorer> {
    const { weights, outputs: wanted } = lossGraph(llm, precision);
    const session = await Session.create<string>(weights.graph, wanted, options);
    const { numHiddenLayers: layers, numKeyValueHeads: kvHeads, headDim } = llm.config;
    const caches: KVCache[] = [];
    for (let i = 0; i < prompts.length; i += batch) {
      const part = prompts.slice(i, i + batch);
      const filled = new KVCache({ layers, kvHeads, headDim }, part.length);
      const head = { wanted: indices([1], [0]), targets: indices([1], [0]) };
      const outputs = await session.run({ ...readingFeeds(part, filled, llm.config), ...head });
      filled.append(outputs, part[0]?.length ?? 0);
      caches.push(filled);
    }
    return new LikelihoodScorer(session, llm, caches);
  }

  /**
   * The loss of each of a text's tokens after each picture, [pictures][tokens].
   *
   * @param first the position before the text, which predicts its first token
   * @param text at least one token
   */
  async score(first: Position, text: readonly number[]): Promise<Float32Array[]> {
    const all: Float32Array[] = [];
    for (const cache of this.caches) {
      const sequences = Array.from({ length: cache.batch }, () => [first, ...text.slice(0, -1)]);
      const count = cache.batch * text.length;
      const { losses } = await this.session.run({
        ...readingFeeds(sequences, cache, this.llm.config),
        wanted: indices(
          [count],
          Array.from({ length: count }, (_, i) => i),
        ),
        targets: indices(
          [count],
          sequences.flatMap(() => text),
        ),
      });
      const values = losses?.data as Float32Array;
      for (let i = 0; i < cache.batch; i++) all.push(values.subarray(i * text.length, (i + 1) * text.length));
    }
    return all;
  }

  release(): Promise<void> {
    return this.session.release();
  }
}

/** What `likelihood` finds, over all captions; ranks are the places of the own picture among all, the most likely first. */
export interface LikelihoodReport extends RankSummary {
  readonly pictures: number;
  readonly captions: number;
  /** Mean loss of a caption's tokens given its own picture, the end symbol counted as a token. */
  readonly right: number;
  /** The same for the words alone, without the end symbol. */
  readonly rightWithoutEnd: number;
  /** The same, given another picture; the mean over all others. */
  readonly wrong: number;
}

/** One caption: the mean losses given each picture, which of them is its own, and that one's without the end symbol. */
export interface CaptionLosses {
  readonly own: number;
  readonly losses: readonly number[];
  readonly withoutEnd: number;
}

/** Summarises the losses of all captions. @throws Error if there are none */
export function summarize(captions: readonly CaptionLosses[]): LikelihoodReport {
  const [any] = captions;
  if (!any) throw new Error("There is no caption to evaluate");
  const rightLosses = captions.map(({ own, losses }) => losses[own] as number);
  const wrongLosses = captions.flatMap(({ own, losses }) => losses.filter((_, i) => i !== own));
  const ranks = captions.map(({ own, losses }) => 1 + losses.filter((loss) => loss < (losses[own] as number)).length);
  return {
    pictures: any.losses.length,
    captions: captions.length,
    right: mean(rightLosses),
    rightWithoutEnd: mean(captions.map(({ withoutEnd }) => withoutEnd)),
    wrong: mean(wrongLosses),
    ...summarizeRanks(ranks),
  };
}

/** The arithmetic mean. */
export function mean(values: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += values[i] as number;
  return sum / values.length;
}
