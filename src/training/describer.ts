/** Descriptions of validation images by the model in training. */

import { generate, toPositions } from "../generation/generate.ts";
import type { LanguageModel } from "../generation/language-model.ts";
import { createLanguageModel } from "../generation/load.ts";
import { frozenShape, imageTokens } from "../models/minigpt4.ts";
import { Weights } from "../nn/weights.ts";
import { Session, type SessionOptions } from "../runtime/session.ts";
import { Graph } from "../tensor/graph.ts";
import { Random } from "../tensor/random.ts";
import type { WeightSource } from "../tensor/weight-source.ts";
import { parsePrompt } from "../tokenizers/prompts.ts";
import type { NamedArrays } from "./checkpoints.ts";
import type { ModelParts } from "./parts.ts";
import type { StageSample } from "./stages/stage.ts";
import type { TrainingPrompt } from "./stages/texts.ts";
import type { TrainingData } from "./training-data.ts";

/** Tokens of the longest description. */
const maxNewTokens = 80;

export interface Description {
  readonly image: string;
  readonly text: string;
}

export interface DescriberOptions {
  readonly parts: ModelParts;
  /** Weights of encoder, Q-Former and projection; only the shapes of the trained ones matter. */
  readonly source: WeightSource;
  readonly prompt: TrainingPrompt;
  readonly samples: readonly StageSample[];
  readonly data: Pick<TrainingData, "load" | "frozen">;
  readonly session?: SessionOptions;
}

export class Describer {
  private readonly options: DescriberOptions;
  private readonly session: Session<"tokens">;
  private readonly llm: LanguageModel;

  private constructor(options: DescriberOptions, session: Session<"tokens">, llm: LanguageModel) {
    this.options = options;
    this.session = session;
    this.llm = llm;
  }

  /** Loads the language model in 4 bits, as small as it gets next to the one that is trained through. */
  static async create(options: DescriberOptions): Promise<Describer> {
    const { source, parts, session = {} } = options;
    const { config, llm, frozen, isTrained } = parts;
    const graph = new Graph();
    const vision = new Weights(graph, source, { trainable: isTrained });
    const features = graph.input("features", "float32", ["images", ...frozenShape(config, frozen.depth)]);
    const weights = { encoder: vision, qformer: vision, projection: vision };
    const tokens = imageTokens(weights, features, config, { depth: frozen.depth });
    const tokenSession = await Session.create(graph, { tokens }, session);
    const model = await createLanguageModel(llm.checkpoint, llm.config, { ...session, quantization: "int4" });
    return new Describer(options, tokenSession, model);
  }

  /** Describes each image greedily. @param weights trained ones */
  async describe(weights: NamedArrays): Promise<Description[]> {
    const { samples, data, parts } = this.options;
    const loaded = await data.load(samples);
    if (loaded.length === 0) return [];
    const features = await data.frozen.compute(loaded.map(({ image }) => image));
    const { tokens } = await this.session.run({ features, ...weights });
    const { hiddenSize } = parts.llm.config;
    const rows = tokens.data as Float32Array;
    const perImage = rows.length / hiddenSize / loaded.length;
    const descriptions: Description[] = [];
    for (const [i, { pair }] of loaded.entries()) {
      const image = Array.from({ length: perImage }, (_, token) => {
        const start = (i * perImage + token) * hiddenSize;
        return rows.subarray(start, start + hiddenSize);
      });
      descriptions.push({ image: pair.name, text: await this.generate(image) });
    }
    return descriptions;
  }

  async close(): Promise<void> {
    await this.session.close();
    await this.llm.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** @param image its image tokens, [hiddenSize] each */
  private async generate(image: readonly Float32Array[]): Promise<string> {
    const { prompt, parts } = this.options;
    const { tokenizer } = parts.llm;
    const positions = toPositions(parsePrompt(prompt.text), [image], tokenizer);
    const options = { maxNewTokens, stop: [prompt.endSym] };
    let text = "";
    for await (const piece of generate(positions, options, {
      model: this.llm,
      tokenizer,
      cache: this.llm.newCache(),
      random: new Random(0),
    })) {
      text += piece;
    }
    return text.trim();
  }
}
