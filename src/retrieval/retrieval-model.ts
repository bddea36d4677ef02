/** What finds images: a model that puts images and texts into one space. */
import type { ImageSpec } from "../images/preprocess.ts";
import type { EncoderConfig } from "../models/minigpt4.ts";
import { Session, type SessionOptions } from "../runtime/session.ts";
import { concatFloat32, type NdArray, ndarray } from "../tensor/array.ts";
import { Graph, type Value } from "../tensor/graph.ts";

/** What an image's vectors depend on, besides the image. */
export interface ModelFingerprint {
  /** Everything but the weights: dimensions, preprocessing, how vectors are made. */
  readonly settings: string;
  /** The files with the weights. */
  readonly files: readonly string[];
}

/** An image that is looked at once more, beside a text. */
export interface CandidateImage {
  /** See `imageId`. */
  readonly id: string;
  /** The encoder's input, [3, size, size]; asked for where nothing is kept of the image. */
  pixels(): Promise<Float32Array>;
}

export interface CandidatePair {
  readonly image: CandidateImage;
  readonly text: string;
}

/** What a matching head says of an image and a text. */
export interface MatchScore {
  /** The score of "together". */
  readonly logit: number;
  /** Softmax of "apart" and "together". */
  readonly probability: number;
}

export interface RetrievalModel {
  /** How images are decoded for it. */
  readonly spec: ImageSpec;
  /** Vectors of one image, [count, size], each of length 1. */
  readonly shape: readonly [count: number, size: number];
  readonly fingerprint: ModelFingerprint;
  /**
   * Vectors of some images, one after the other: [images, ...shape].
   * @param pixels the encoder's inputs, [3, size, size] each
   * @param ids under which it is kept what `match` needs of the images; left out, nothing is
   */
  embedImages(pixels: readonly Float32Array[], ids?: readonly string[]): Promise<Float32Array>;
  /**
   * The vectors of texts, [size] each, of length 1. Texts are read as captions are in training: lower-cased, without punctuation,
   * fifty words at most. @throws QuestionError if one has no word, or none that counts
   */
  embedTexts(texts: readonly string[]): Promise<Float32Array[]>;
  /** Looks at images and texts together, where the model has a head for that. @throws QuestionError as `embedTexts` */
  match?(pairs: readonly CandidatePair[], signal?: AbortSignal): Promise<MatchScore[]>;
  /**
   * How likely the texts are to be generated from the images, where the model generates: the mean log-likelihood of a text's
   * tokens. @throws QuestionError as `embedTexts`
   */
  captionLogLikelihoods?(pairs: readonly CandidatePair[], signal?: AbortSignal): Promise<number[]>;
  /** Frees the engine's memory, and closes the files. */
  close(): Promise<void>;
}

/** Images that go through an encoder side by side. */
export const imageBatchSize = 4;

// A session that is made when it is first needed: a search in a ready index has no use for the image encoder.

export class LazySession<Output extends string> {
  private readonly outputs: (graph: Graph) => Readonly<Record<Output, Value>>;
  private readonly options: SessionOptions;
  private session: Promise<Session<Output>> | undefined;

  /** @param outputs builds the graph */
  constructor(outputs: (graph: Graph) => Readonly<Record<Output, Value>>, options: SessionOptions) {
    this.outputs = outputs;
    this.options = options;
  }

  async run(feeds: Readonly<Record<string, NdArray>>): Promise<Record<Output, NdArray>> {
    this.session ??= this.create();
    return (await this.session).run(feeds);
  }

  async close(): Promise<void> {
    const session = await this.session?.catch(() => undefined);
    await session?.close();
  }

  private async create(): Promise<Session<Output>> {
    const graph = new Graph();
    return Session.create(graph, this.outputs(graph), this.options);
  }
}

// The input of an image encoder in a graph, and what it is fed with.

/** Images [images, 3, size, size]. */
export function pixelInput(graph: Graph, { imageSize }: EncoderConfig): Value {
  return graph.input("pixels", "float32", ["images", 3, imageSize, imageSize]);
}

/** @param images [3, size, size] each */
export function pixelFeeds(images: readonly Float32Array[], { imageSize }: EncoderConfig): Record<"pixels", NdArray> {
  const shape = [images.length, 3, imageSize, imageSize];
  return { pixels: ndarray("float32", shape, concatFloat32(images)) };
}
