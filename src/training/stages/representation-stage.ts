/** BLIP-2's first pre-training stage: images with their texts become the batches that `representation` learns from. */
import { type Blip2Config, generationTargets, textArrays } from "../../models/blip2.ts";
import { crossAttend, type FrozenDepth, frozenShape } from "../../models/minigpt4.ts";
import { masked } from "../../nn/attention.ts";
import { Weights } from "../../nn/weights.ts";
import { concatFloat32, type NdArray, ndarray, sizeOf } from "../../tensor/array.ts";
import { reaches } from "../../tensor/grad/gradients.ts";
import { Graph, type Value } from "../../tensor/graph.ts";
import type { Random } from "../../tensor/random.ts";
import type { WeightSource } from "../../tensor/weight-source.ts";
import type { WordPieceTokenizer } from "../../tokenizers/wordpiece.ts";
import { embedBatch, embeddedNames, type RepresentationLoss, representation } from "./representation.ts";
import { type ComposedBatch, Dropout, dropFeatures, type GradCache, type Stage, type StageSample } from "./stage.ts";
import type { TextsOf } from "./texts.ts";

export interface RepresentationStageOptions {
  readonly config: Blip2Config;
  readonly depth: FrozenDepth;
  /** Of Q-Former, heads and `ln_vision`; of the trained ones only the shapes count. */
  readonly source: WeightSource;
  isTrained(name: string): boolean;
  readonly losses: readonly RepresentationLoss[];
  readonly tokenizer: WordPieceTokenizer;
  readonly textsOf: TextsOf;
  readonly maxTextLength: number;
  /** Shares that are set to zero in training. */
  readonly dropout: number;
  readonly featureDropout: number;
}

export function representationStage(given: RepresentationStageOptions): Stage {
  const learned = learnedNames(given);
  const options = { ...given, isTrained: (name: string) => learned.has(name) };
  const { losses, tokenizer, textsOf } = options;
  const main = network(options);
  const { loss, terms } = lossOf(main, options);

  function compose(samples: readonly StageSample[], random: Random): ComposedBatch {
    const texts = samples.map((sample) => {
      const all = textsOf(sample);
      return tokenizer.encode(all[random.below(Math.max(1, all.length))] ?? "", options.maxTextLength);
    });
    const words = textArrays(texts, tokenizer.padId);
    const noise = () => drawNoise(samples, random);
    const forMatching = losses.includes("itm") && { captionNoise: noise(), imageNoise: noise() };
    const length = words.textIds.shape[1] as number;
    const { targetPlaces, targetIds } = generationTargets(texts, length);
    const tokens = texts.reduce((sum, ids) => sum + ids.length, 0);
    // An image alone has no wrong text.
    const isOfUse = samples.length > 1 || !losses.includes("itm");
    return {
      targets: isOfUse ? targetIds.data.length : 0,
      tokens,
      places: samples.length * length,
      feeds(features, step): Record<string, NdArray> {
        dropFeatures(features.data, options.featureDropout, random);
        return {
          ...words,
          ...forMatching,
          ...(losses.includes("itg") && { targetPlaces, targetIds, targetShare: scalar(1 / step.targets) }),
          ...main.dropout.feeds({ images: samples.length, length }, random),
          features,
          places: range(0, samples.length),
          share: scalar(samples.length / step.samples),
        };
      },
    };
  }
  return {
    name: "representation",
    graph: main.weights.graph,
    loss,
    terms: terms as Readonly<Record<string, Value>>,
    trained: main.weights.trained,
    ...(losses.includes("itc") && { exchange: exchangeOf(options) }),
    compose,
  };
}

/** Of the weights that may be trained, those that the losses depend on: without contrast, say, its projections are of no use. */
function learnedNames(options: RepresentationStageOptions): ReadonlySet<string> {
  const main = network(options);
  const { loss } = lossOf(main, options);
  return new Set([...main.weights.trained].filter(([, value]) => reaches(loss, value)).map(([name]) => name));
}

function lossOf({ weights, features, regularize }: ReturnType<typeof network>, options: RepresentationStageOptions) {
  const { config, losses, tokenizer } = options;
  return representation(weights, features, config, { losses, decId: tokenizer.decId, regularize });
}

/** Inputs, weights and dropout of one graph. */
function network({ config, depth, source, isTrained, dropout: share }: RepresentationStageOptions) {
  const graph = new Graph();
  const weights = new Weights(graph, source, { trainable: isTrained });
  const dropout = new Dropout(graph, share);
  const images = graph.input("features", "float32", ["images", ...frozenShape(config, depth)]);
  const features = crossAttend({ qformer: weights }, images, config, depth);
  return { weights, dropout, features, regularize: (x: Value) => dropout.apply(x) };
}

/** What a batch embeds, with the same dropout as where it is learned: `embedBatch` asks for it in the same order. */
function exchangeOf(options: RepresentationStageOptions): GradCache {
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

/** [samples, samples]: Gumbel noise, and `masked` where both are of the same image, which would be no negative. */
function drawNoise(samples: readonly StageSample[], random: Random): NdArray {
  const names = samples.map(({ pair, dataset }) => `${dataset} ${pair.name}`);
  const noise = new Float32Array(samples.length ** 2);
  for (let row = 0; row < samples.length; row++) {
    for (let column = 0; column < samples.length; column++) {
      const isSame = names[row] === names[column];
      // Drawn for all, so that the numbers that follow do not depend on names. Below 1, and never 0.
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
