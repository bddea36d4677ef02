/** BLIP-2's first pre-training stage: images with their texts as batches for the losses of `representation`. */
import { type Blip2Config, generationTargets, textArrays } from "../../models/blip2.ts";
import { type FrozenDepth, frozenShape, normalizeFeatures } from "../../models/minigpt4.ts";
import { masked } from "../../nn/attention.ts";
import { Weights } from "../../nn/weights.ts";
import { concatFloat32, type NdArray, ndarray, sizeOf } from "../../tensor/array.ts";
import { reaches } from "../../tensor/grad/gradients.ts";
import { Graph, type Value } from "../../tensor/graph.ts";
import type { Random } from "../../tensor/random.ts";
import type { WeightSource } from "../../tensor/weight-source.ts";
import type { WordPieceTokenizer } from "../../tokenizers/wordpiece.ts";
import type { QFormerParts } from "../parts.ts";
import type { QFormerRecipe } from "../recipe.ts";
import { embedBatch, embeddedNames, type RepresentationLoss, representation } from "./representation.ts";
import { Dropout, dropFeatures, type GradCache, type Stage, type StageSample, type StepTotals } from "./stage.ts";
import type { TextsOf } from "./texts.ts";

export interface RepresentationStageOptions {
  readonly config: Blip2Config;
  readonly depth: FrozenDepth;
  /** Weights of Q-Former, heads and `ln_vision`; only the shapes of the trained ones matter. */
  readonly source: WeightSource;
  isTrained(name: string): boolean;
  readonly losses: readonly RepresentationLoss[];
  readonly tokenizer: WordPieceTokenizer;
  readonly textsOf: TextsOf;
  readonly maxTextLength: number;
  /** Dropout rates of the Q-Former and of its input features. */
  readonly dropout: number;
  readonly featureDropout: number;
  /** Images of a validation batch. */
  readonly validationBatchSize: number;
}

/** The stage of a recipe. */
export function qformerStage({ model, run }: QFormerRecipe, parts: QFormerParts, textsOf: TextsOf): Stage {
  return representationStage({
    config: parts.config,
    depth: parts.frozen.depth,
    source: parts.image,
    isTrained: parts.isTrained,
    losses: model.losses,
    tokenizer: parts.tokenizer,
    textsOf,
    maxTextLength: model.max_txt_len,
    dropout: run.qformer_dropout,
    featureDropout: run.feature_dropout,
    validationBatchSize: run.batch_size,
  });
}

export function representationStage(given: RepresentationStageOptions): Stage {
  const used = usedNames(given);
  const options = { ...given, isTrained: (name: string) => used.has(name) };
  const { losses, tokenizer, textsOf } = options;
  const { weights, dropout, features, regularize } = network(options);
  const { loss, terms } = representation(weights, features, options.config, {
    losses,
    decId: tokenizer.decId,
    regularize,
  });
  const gradCache = losses.includes("itc") ? embeddingCache(options) : undefined;

  /** The inputs of a batch but its features and dropout masks. */
  function composeTexts(samples: readonly StageSample[], random: Random) {
    const texts = samples.map((sample) => {
      const all = textsOf(sample);
      return tokenizer.encode(all[random.below(Math.max(1, all.length))] ?? "", options.maxTextLength);
    });
    const inputs = textArrays(texts, tokenizer.padId);
    const noise = () => drawNoise(samples, random);
    const matching = losses.includes("itm") && { captionNoise: noise(), imageNoise: noise() };
    const length = inputs.textIds.shape[1] as number;
    const { targetIndices, targetIds } = generationTargets(texts, length);
    // Matching needs a negative: the text of another image.
    const isUsable = samples.length > 1 || !losses.includes("itm");
    return {
      targets: isUsable ? targetIds.data.length : 0,
      tokens: texts.reduce((sum, ids) => sum + ids.length, 0),
      sizes: { images: samples.length, length },
      feeds: (step: StepTotals): Record<string, NdArray> => ({
        ...inputs,
        ...matching,
        ...(losses.includes("itg") && { targetIndices, targetIds, targetShare: scalar(1 / step.targets) }),
        places: range(0, samples.length),
        share: scalar(samples.length / step.samples),
      }),
    };
  }

  return {
    name: "representation",
    graph: weights.graph,
    loss,
    terms: terms as Readonly<Record<string, Value>>,
    trained: weights.trained,
    gradCache,
    compose(samples, random) {
      const { targets, tokens, sizes, feeds } = composeTexts(samples, random);
      return {
        targets,
        tokens,
        paddedTokens: sizes.images * sizes.length,
        feeds(images, step) {
          dropFeatures(images.data, options.featureDropout, random);
          return { ...feeds(step), ...dropout.feeds(sizes, random), features: images };
        },
      };
    },
    validation: {
      batchSize: options.validationBatchSize,
      losses: loss,
      compose(samples, random) {
        const { targets, sizes, feeds } = composeTexts(samples, random);
        const totals = { targets, samples: samples.length };
        return {
          weight: targets > 0 ? samples.length : 0,
          feeds: (images) => ({
            ...feeds(totals),
            ...dropout.identity(sizes),
            ...gradCache?.feeds(samples.length, []),
            features: images,
          }),
        };
      },
    },
  };
}

/** The names of the weights that may be trained and that the losses depend on. */
function usedNames(options: RepresentationStageOptions): ReadonlySet<string> {
  const { weights, features, regularize } = network(options);
  const { losses, tokenizer, config } = options;
  const { loss } = representation(weights, features, config, { losses, decId: tokenizer.decId, regularize });
  return new Set([...weights.trained].filter(([, value]) => reaches(loss, value)).map(([name]) => name));
}

/** The weights, features and dropout of a new graph. */
function network({ config, depth, source, isTrained, dropout: rate }: RepresentationStageOptions) {
  const graph = new Graph();
  const weights = new Weights(graph, source, { trainable: isTrained });
  const dropout = new Dropout(graph, rate);
  const images = graph.input("features", "float32", ["images", ...frozenShape(config, depth)]);
  const features = normalizeFeatures({ qformer: weights }, images, config, depth);
  return { weights, dropout, features, regularize: (x: Value) => dropout.apply(x) };
}

/** The embeddings of a batch. `embedBatch` applies dropout in the order of the main graph, so its masks fit both. */
function embeddingCache(options: RepresentationStageOptions): GradCache {
  const { weights, features, regularize } = network(options);
  const { images, captions } = embedBatch(weights, features, options.config, regularize);
  const { numQueryTokens } = options.config.qformer;
  const { embedDim } = options.config;
  const rows = { images: [numQueryTokens, embedDim], captions: [embedDim] };
  return {
    graph: weights.graph,
    outputs: { [embeddedNames.images]: images, [embeddedNames.captions]: captions },
    feeds(samples, others) {
      const imageRows = joinRows(others, embeddedNames.images, rows.images);
      return {
        [embeddedNames.images]: imageRows,
        [embeddedNames.captions]: joinRows(others, embeddedNames.captions, rows.captions),
        otherPlaces: range(samples, samples + (imageRows.shape[0] as number)),
      };
    },
  };
}

function joinRows(
  batches: readonly Readonly<Record<string, NdArray>>[],
  name: string,
  row: readonly number[],
): NdArray {
  const all = concatFloat32(batches.map((batch) => batch[name]?.data as Float32Array));
  return ndarray("float32", [all.length / sizeOf(row), ...row], all);
}

/** [samples, samples]: Gumbel noise, and `masked` where both are of the same image, which is not a negative. */
function drawNoise(samples: readonly StageSample[], random: Random): NdArray {
  const names = samples.map(({ pair, dataset }) => `${dataset} ${pair.name}`);
  const noise = new Float32Array(samples.length ** 2);
  for (let row = 0; row < samples.length; row++) {
    for (let column = 0; column < samples.length; column++) {
      const isSame = names[row] === names[column];
      // Drawn for every pair, so that later random numbers do not depend on names. Below 1, and never 0.
      const uniform = (random.uint32() + 0.5) / 2 ** 32;
      noise[row * samples.length + column] = isSame ? masked : -Math.log(-Math.log(uniform));
    }
  }
  return ndarray("float32", [samples.length, samples.length], noise);
}

/** [end - start, 1] */
function range(start: number, end: number): NdArray {
  const values = BigInt64Array.from({ length: end - start }, (_, i) => BigInt(start + i));
  return ndarray("int64", [values.length, 1], values);
}

function scalar(value: number): NdArray {
  return ndarray("float32", [], Float32Array.of(value));
}
