/** The stage that MiniGPT-4 is about: texts of images through the frozen language model. */
import { tokensPerImage } from "../../models/minigpt4.ts";
import { type NdArray, ndarray } from "../../tensor/array.ts";
import type { Value } from "../../tensor/graph.ts";
import type { Random } from "../../tensor/random.ts";
import type { WeightSource } from "../../tensor/weight-source.ts";
import { LayeredLoss } from "../layered-loss.ts";
import type { ModelParts } from "../parts.ts";
import type { MiniGPT4Recipe } from "../recipe.ts";
import { captionLoss, knownLoss, sequenceEmbeddings, trainingWeights } from "./caption-loss.ts";
import { batchSequences } from "./sequences.ts";
import { type ComposedBatch, Dropout, dropFeatures, type Stage, type StageSample } from "./stage.ts";
import { answerTokens, choosePrompt, type TextsOf, type TrainingPrompt } from "./texts.ts";

/**
 * The stage of a recipe.
 *
 * @param source weights of encoder, Q-Former and projection; of the trained ones only the shapes count
 */
export function captionStage(
  { run, model }: MiniGPT4Recipe,
  parts: ModelParts,
  source: WeightSource,
  prompts: readonly TrainingPrompt[],
  textsOf: TextsOf,
): Stage {
  const { config, llm, frozen, layered } = parts;
  const network = () => {
    const weights = trainingWeights(parts, source, model.llm_precision);
    const dropout = new Dropout(weights.llm.graph, frozen.depth === "qformer" ? 0 : run.qformer_dropout);
    return { weights, dropout, depth: frozen.depth, regularize: (x: Value) => dropout.apply(x) };
  };
  const { weights, dropout, ...options } = network();
  const loss = layered
    ? knownLoss(sequenceEmbeddings(weights, config, options))
    : captionLoss(weights, config, options);

  function compose(samples: readonly StageSample[], random: Random): ComposedBatch {
    const sequences = samples.map((sample, i) => {
      const { pieces, endSym } = choosePrompt(prompts, random);
      const texts = random.shuffle([...textsOf(sample)]).slice(0, run.answers_per_image);
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
  return {
    name: "captions",
    graph: loss.graph,
    loss,
    trained: weights.projection.trained,
    ...(layered && {
      openOutside(session) {
        const { weights: own, depth, regularize } = network();
        return LayeredLoss.create(own, config, layered, { depth, regularize, session });
      },
    }),
    compose,
  };
}
