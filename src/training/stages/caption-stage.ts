/** The stage that MiniGPT-4 is about: texts of pictures through the frozen language model. */

import { int8Choice } from "../../models/llama.ts";
import { tokensPerImage } from "../../models/minigpt4.ts";
import { type WeightSource, Weights } from "../../nn/weights.ts";
import { type NdArray, ndarray } from "../../tensor/array.ts";
import { Graph } from "../../tensor/graph.ts";
import type { Random } from "../../tensor/random.ts";
import type { MiniGPT4Recipe } from "../minigpt4-recipe.ts";
import type { ModelParts } from "../parts.ts";
import { batchSequences } from "./batch.ts";
import { Dropout, dropFeatures } from "./dropout.ts";
import { captionLoss } from "./loss.ts";
import { answerTokens, choosePrompt, type TrainingPrompt } from "./prompts.ts";
import type { ComposedBatch, Stage, StageSample } from "./stage.ts";
import type { TextsOf } from "./texts.ts";

/**
 * The stage of a recipe.
 *
 * @param source weights of encoder, Q-Former and projection; of the trained ones only the shapes count
 */
export function captionStage(
  { run, model }: MiniGPT4Recipe,
  { config, llm, frozen, isTrained }: ModelParts,
  source: WeightSource,
  prompts: readonly TrainingPrompt[],
  textsOf: TextsOf,
): Stage {
  const graph = new Graph();
  const image = new Weights(graph, source, { trainable: isTrained });
  const weights = {
    encoder: image,
    qformer: image,
    projection: image,
    llm: new Weights(graph, llm.checkpoint, model.llm_precision === "int8" ? { int8: int8Choice } : {}),
  };
  const dropout = new Dropout(graph, frozen.depth === "qformer" ? 0 : run.qformer_dropout);
  const loss = captionLoss(weights, config, { depth: frozen.depth, regularize: (x) => dropout.apply(x) });

  function compose(samples: readonly StageSample[], random: Random): ComposedBatch {
    const sequences = samples.map((sample, i) => {
      const { pieces, endSym } = choosePrompt(prompts, random);
      const texts = random.shuffle([...textsOf(sample)]).slice(0, run.answers_per_picture);
      const answers = texts.map((text) => answerTokens(text, endSym, model.max_txt_len, llm.tokenizer));
      return { image: i, prompt: pieces, answers };
    });
    const { feeds, ...counts } = batchSequences(sequences, tokensPerImage(config));
    return {
      ...counts,
      feeds(features, { targets }) {
        dropFeatures(features.data, run.feature_dropout, random);
        const targetShare: NdArray = ndarray("float32", [], Float32Array.of(1 / targets));
        return { ...feeds, ...dropout.feeds({ images: samples.length }, random), features, targetShare };
      },
    };
  }
  return { name: "captions", graph, loss, trained: image.trained, compose };
}
