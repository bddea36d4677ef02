/** The loss of captions of images that are not trained on. */
import { tokensPerImage } from "../models/minigpt4.ts";
import { Session, type SessionOptions } from "../runtime/session.ts";
import type { NdArray } from "../tensor/array.ts";
import type { Value } from "../tensor/graph.ts";
import type { WeightSource } from "../tensor/weight-source.ts";
import type { NamedArrays } from "./checkpoints.ts";
import { LayeredLoss } from "./layered-loss.ts";
import type { ModelParts } from "./parts.ts";
import { type HeldOut, type Images, loadHeldOut, type PreparedQFormer, stageOf } from "./prepare.ts";
import type { MiniGPT4Recipe } from "./recipe.ts";
import { tokenLosses, trainingWeights } from "./stages/caption-loss.ts";
import { batchSequences } from "./stages/sequences.ts";
import { type Stage, type StageSample, stepRandom } from "./stages/stage.ts";
import { answerTokens, type TextsOf, type TrainingPrompt } from "./stages/texts.ts";

/** Images that are read side by side. */
const batch = 16;

/** Reads sequences: the loss of each of their targets. */
interface TokenLosses {
  tokenLosses(feeds: Readonly<Record<string, NdArray>>): Promise<Float32Array>;
  close(): Promise<void>;
}

export class Validation implements HeldOut {
  private readonly reader: TokenLosses;
  private readonly samples: readonly StageSample[];
  private readonly images: Images;
  private readonly sequencesOf: (samples: readonly StageSample[]) => ReturnType<typeof batchSequences>;

  private constructor(
    reader: TokenLosses,
    samples: readonly StageSample[],
    images: Images,
    sequencesOf: Validation["sequencesOf"],
  ) {
    this.reader = reader;
    this.samples = samples;
    this.images = images;
    this.sequencesOf = sequencesOf;
  }

  /**
   * @param source weights of encoder, Q-Former and projection; of the trained ones only the shapes count, their values
   *   are given at each measurement
   * @param prompt what stands before each answer
   */
  static async create(
    { model }: MiniGPT4Recipe,
    parts: ModelParts,
    source: WeightSource,
    samples: readonly StageSample[],
    prompt: TrainingPrompt,
    textsOf: TextsOf,
    images: Images,
    options: SessionOptions,
  ): Promise<Validation> {
    const { config, llm, frozen, layered } = parts;
    const weights = trainingWeights(parts, source, "float32");
    const { depth } = frozen;
    const reader = layered
      ? await LayeredLoss.create(weights, config, layered, { depth, session: options })
      : await GraphLoss.create(tokenLosses(weights, config, { depth }), options);
    const sequencesOf = (part: readonly StageSample[]) =>
      batchSequences(
        part.map((sample, i) => ({
          image: i,
          prompt: prompt.pieces,
          answers: textsOf(sample).map((text) => answerTokens(text, prompt.endSym, model.max_txt_len, llm.tokenizer)),
        })),
        tokensPerImage(config),
      );
    return new Validation(reader, samples, images, sequencesOf);
  }

  /** The mean loss of all tokens of all texts under `weights`. */
  async measure(weights: NamedArrays): Promise<number> {
    let sum = 0;
    let count = 0;
    for (let start = 0; start < this.samples.length; start += batch) {
      const part = await loadHeldOut(this.samples.slice(start, start + batch), this.images);
      const { feeds, targets } = this.sequencesOf(part);
      if (targets === 0) continue;
      const features = await this.images.frozen.compute(part.map(({ image }) => image));
      for (const loss of await this.reader.tokenLosses({ ...feeds, features, ...weights })) sum += loss;
      count += targets;
    }
    if (count === 0) throw new Error("None of the watched images can be read, or all their texts are empty");
    return sum / count;
  }

  close(): Promise<void> {
    return this.reader.close();
  }
}

/** All of the way as one graph. */
class GraphLoss implements TokenLosses {
  private readonly session: Session<"losses">;

  private constructor(session: Session<"losses">) {
    this.session = session;
  }

  static async create(losses: Value, options: SessionOptions): Promise<GraphLoss> {
    return new GraphLoss(await Session.create(losses.graph, { losses }, options));
  }

  async tokenLosses(feeds: Readonly<Record<string, NdArray>>): Promise<Float32Array> {
    return (await this.session.run(feeds)).losses.data as Float32Array;
  }

  close(): Promise<void> {
    return this.session.close();
  }
}

// The losses of pre-training on images that are not trained on.

export class QFormerValidation implements HeldOut {
  private readonly prepared: PreparedQFormer;
  private readonly stage: Stage;
  private readonly session: Session<"loss">;

  private constructor(prepared: PreparedQFormer, stage: Stage, session: Session<"loss">) {
    this.prepared = prepared;
    this.stage = stage;
    this.session = session;
  }

  static async create(prepared: PreparedQFormer, options: SessionOptions): Promise<QFormerValidation> {
    const stage = stageOf(prepared, { isWatched: true });
    return new QFormerValidation(prepared, stage, await Session.create(stage.graph, { loss: stage.loss }, options));
  }

  /** The mean over batches as large as those of the run, whose texts and negatives are the same at each measurement. */
  async measure(weights: NamedArrays): Promise<number> {
    const { recipe, validation, frozen } = this.prepared;
    const { batch_size: size, seed } = recipe.run;
    const random = stepRandom(seed, 0);
    let [sum, count] = [0, 0];
    for (let start = 0; start < validation.length; start += size) {
      const part = await loadHeldOut(validation.slice(start, start + size), this.prepared);
      if (part.length === 0) continue;
      const composed = this.stage.compose(part, random);
      if (composed.targets === 0) continue;
      const features = await frozen.compute(part.map(({ image }) => image));
      const feeds = composed.feeds(features, { targets: composed.targets, samples: part.length });
      const { loss } = await this.session.run({
        ...feeds,
        ...this.stage.exchange?.feeds(part.length, []),
        ...weights,
      });
      sum += (loss.data[0] as number) * part.length;
      count += part.length;
    }
    if (count === 0) throw new Error("None of the watched images can be read, or all their texts are empty");
    return sum / count;
  }

  close(): Promise<void> {
    return this.session.close();
  }
}
