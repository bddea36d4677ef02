/** The stage that MiniGPT-4 is about: the texts of images through the frozen language model. */
import { tokensPerImage } from "../../models/minigpt4.ts";
import { ndarray } from "../../tensor/array.ts";
import type { Value } from "../../tensor/graph.ts";
import type { WeightSource } from "../../tensor/weight-source.ts";
import { OffloadedLoss } from "../layer-offload.ts";
import type { OffloadedLlama } from "../offloaded-llama.ts";
import type { ModelParts } from "../parts.ts";
import type { MiniGPT4Recipe } from "../recipe.ts";
import { externalLoss, meanLoss, sequenceEmbeddings, tokenLosses, trainingWeights } from "./caption-loss.ts";
import { batchSequences, type Sample } from "./sequences.ts";
import { Dropout, dropFeatures, type Stage } from "./stage.ts";
import { answerTokens, choosePrompt, type TextsOf, type TrainingPrompt } from "./texts.ts";

/** Images of a validation batch. */
const validationBatchSize = 16;

export interface CaptionStageOptions {
  readonly recipe: MiniGPT4Recipe;
  readonly parts: ModelParts;
  /** The language model, where it does not fit into memory. */
  readonly offloaded?: OffloadedLlama;
  /** Weights of encoder, Q-Former and projection; only the shapes of the trained ones matter. */
  readonly source: WeightSource;
  readonly prompts: readonly TrainingPrompt[];
  readonly textsOf: TextsOf;
}

export function captionStage({ recipe, parts, offloaded, source, prompts, textsOf }: CaptionStageOptions): Stage {
  const { run, model } = recipe;
  const { config, llm } = parts;
  const { weights, dropout, options } = network(recipe, parts, source);
  const losses = offloaded ? undefined : tokenLosses(weights, config, options);
  const loss = losses ? meanLoss(losses) : externalLoss(sequenceEmbeddings(weights, config, options));

  const tokenize = (text: string, endSym: string) => answerTokens(text, endSym, model.max_txt_len, llm.tokenizer);
  const batch = (sequences: readonly Sample[]) => batchSequences(sequences, tokensPerImage(config));
  const targetShare = (targets: number) => ndarray("float32", [], Float32Array.of(1 / targets));

  return {
    name: "captions",
    graph: loss.graph,
    loss,
    trained: weights.projection.trained,
    openExternalLoss:
      offloaded &&
      (async (session) => {
        const own = network(recipe, parts, source);
        return OffloadedLoss.create(sequenceEmbeddings(own.weights, config, own.options), offloaded, session);
      }),
    compose(samples, random) {
      const sequences = samples.map((sample, image) => {
        const { pieces, endSym } = choosePrompt(prompts, random);
        const texts = random.shuffle([...textsOf(sample)]).slice(0, run.answers_per_image);
        return { image, prompt: pieces, answers: texts.map((text) => tokenize(text, endSym)) };
      });
      const { feeds, ...counts } = batch(sequences);
      return {
        ...counts,
        feeds(features, step) {
          dropFeatures(features.data, run.feature_dropout, random);
          const masks = dropout.feeds({ images: samples.length }, random);
          return { ...feeds, ...masks, features, targetShare: targetShare(step.targets) };
        },
      };
    },
    validation: {
      batchSize: validationBatchSize,
      losses,
      compose(samples) {
        const [prompt] = prompts;
        if (!prompt) throw new Error("Validation needs a prompt");
        const sequences = samples.map((sample, image) => ({
          image,
          prompt: prompt.pieces,
          answers: textsOf(sample).map((text) => tokenize(text, prompt.endSym)),
        }));
        const { feeds, targets } = batch(sequences);
        const masks = dropout.identity({ images: samples.length });
        return {
          weight: targets,
          feeds: (features) => ({ ...feeds, ...masks, features, targetShare: targetShare(targets) }),
        };
      },
    },
  };
}

/** The weights in a new graph, and its dropout. */
function network({ model, run }: MiniGPT4Recipe, parts: ModelParts, source: WeightSource) {
  const { depth } = parts.frozen;
  const weights = trainingWeights(parts, source, model.llm_quantization);
  const dropout = new Dropout(weights.llm.graph, depth === "qformer" ? 0 : run.qformer_dropout);
  return { weights, dropout, options: { depth, regularize: (x: Value) => dropout.apply(x) } };
}
