/** What the model in training says of images that it is not trained on. */

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
import { type Images, loadHeldOut } from "./prepare.ts";
import type { StageSample } from "./stages/stage.ts";
import type { TrainingPrompt } from "./stages/texts.ts";

/** Longest description in tokens. */
const maxNewTokens = 80;

export interface Description {
  readonly image: string;
  readonly text: string;
}

export class Describer {
  private readonly parts: ModelParts;
  private readonly session: Session<"tokens">;
  private readonly llm: LanguageModel;
  private readonly prompt: TrainingPrompt;
  private readonly samples: readonly StageSample[];
  private readonly images: Images;

  private constructor(
    parts: ModelParts,
    session: Session<"tokens">,
    llm: LanguageModel,
    prompt: TrainingPrompt,
    samples: readonly StageSample[],
    images: Images,
  ) {
    this.parts = parts;
    this.session = session;
    this.llm = llm;
    this.prompt = prompt;
    this.samples = samples;
    this.images = images;
  }

  /** The language model is used in 4 bits: it is there beside the one that is trained through, and should be small. */
  static async create(
    parts: ModelParts,
    source: WeightSource,
    prompt: TrainingPrompt,
    samples: readonly StageSample[],
    images: Images,
    options: SessionOptions,
  ): Promise<Describer> {
    const { config, llm, frozen, isTrained } = parts;
    const graph = new Graph();
    const image = new Weights(graph, source, { trainable: isTrained });
    const features = graph.input("features", "float32", ["images", ...frozenShape(config, frozen.depth)]);
    const weights = { encoder: image, qformer: image, projection: image };
    const tokens = imageTokens(weights, features, config, { depth: frozen.depth });
    const session = await Session.create(graph, { tokens }, options);
    const model = await createLanguageModel(llm.checkpoint, llm.config, { ...options, precision: "int4" });
    return new Describer(parts, session, model, prompt, samples, images);
  }

  /** The likeliest text after each image under `weights`. */
  async describe(weights: NamedArrays): Promise<Description[]> {
    const loaded = await loadHeldOut(this.samples, this.images);
    if (loaded.length === 0) return [];
    const features = await this.images.frozen.compute(loaded.map(({ image }) => image));
    const { tokens } = await this.session.run({ features, ...weights });
    const { hiddenSize } = this.parts.llm.config;
    const rows = tokens.data as Float32Array;
    const perImage = rows.length / hiddenSize / loaded.length;
    const descriptions: Description[] = [];
    for (const [i, { pair }] of loaded.entries()) {
      const image = Array.from({ length: perImage }, (_, token) => {
        const start = (i * perImage + token) * hiddenSize;
        return rows.subarray(start, start + hiddenSize);
      });
      descriptions.push({ image: pair.name, text: await this.continue(image) });
    }
    return descriptions;
  }

  async close(): Promise<void> {
    await this.session.close();
    await this.llm.close();
  }

  private async continue(image: readonly Float32Array[]): Promise<string> {
    const { tokenizer } = this.parts.llm;
    const prompt = toPositions(parsePrompt(this.prompt.text), [image], tokenizer);
    const options = { maxNewTokens, stop: [this.prompt.endSym] };
    let text = "";
    for await (const piece of generate(prompt, options, {
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
