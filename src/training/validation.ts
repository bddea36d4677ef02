/** The loss of captions of pictures that are not trained on. */
import { tokensPerImage } from "../models/minigpt4.ts";
import type { WeightSource } from "../nn/weights.ts";
import type { NdArray } from "../tensor/array.ts";
import type { Value } from "../tensor/graph.ts";
import { Session, type SessionOptions } from "../tensor/session.ts";
import type { NamedArrays } from "./checkpoints.ts";
import { type HeldOut, loadHeldOut, type Pictures } from "./held-out.ts";
import { LayeredLoss } from "./layered/layered-loss.ts";
import type { MiniGPT4Recipe } from "./minigpt4-recipe.ts";
import type { ModelParts } from "./parts.ts";
import { batchSequences } from "./stages/batch.ts";
import { tokenLosses } from "./stages/loss.ts";
import { answerTokens, type TrainingPrompt } from "./stages/prompts.ts";
import type { StageSample } from "./stages/stage.ts";
import type { TextsOf } from "./stages/texts.ts";
import { trainingWeights } from "./stages/training-weights.ts";

/** Pictures that are read side by side. */
const batch = 16;

/** Reads sequences: the loss of each of their targets. */
interface TokenLosses {
  tokenLosses(feeds: Readonly<Record<string, NdArray>>): Promise<Float32Array>;
  release(): Promise<void>;
}

export class Validation implements HeldOut {
  private readonly reader: TokenLosses;
  private readonly samples: readonly StageSample[];
  private readonly pictures: Pictures;
  private readonly sequencesOf: (samples: readonly StageSample[]) => ReturnType<typeof batchSequences>;

  private constructor(
    reader: TokenLosses,
    samples: readonly StageSample[],
    pictures: Pictures,
    sequencesOf: Validation["sequencesOf"],
  ) {
    this.reader = reader;
    this.samples = samples;
    this.pictures = pictures;
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
    pictures: Pictures,
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
    return new Validation(reader, samples, pictures, sequencesOf);
  }

  /** The mean loss of all tokens of all texts under `weights`. */
  async measure(weights: NamedArrays): Promise<number> {
    let sum = 0;
    let count = 0;
    for (let start = 0; start < this.samples.length; start += batch) {
      const part = await loadHeldOut(this.samples.slice(start, start + batch), this.pictures);
      const { feeds, targets } = this.sequencesOf(part);
      if (targets === 0) continue;
      const features = await this.pictures.frozen.of(part.map(({ picture }) => picture));
      for (const loss of await this.reader.tokenLosses({ ...feeds, features, ...weights })) sum += loss;
      count += targets;
    }
    if (count === 0) throw new Error("None of the watched pictures can be read, or all their texts are empty");
    return sum / count;
  }

  release(): Promise<void> {
    return this.reader.release();
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

  release(): Promise<void> {
    return this.session.release();
  }
}
