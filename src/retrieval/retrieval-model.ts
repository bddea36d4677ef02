/** The interface of a model that embeds images and texts into one space, and what its implementations share. */
import type { ImageSpec } from "../images/preprocess.ts";
import type { EncoderConfig } from "../models/minigpt4.ts";
import { Session, type SessionOptions } from "../runtime/session.ts";
import { concatFloat32, type NdArray, ndarray } from "../tensor/array.ts";
import { Graph, type Value } from "../tensor/graph.ts";

/** Everything the embeddings of an image depend on, except the image. An index made with another fingerprint is rebuilt. */
export interface ModelFingerprint {
  /** Dimensions, preprocessing and kind of head, as JSON. */
  readonly settings: string;
  /** The weight files. */
  readonly files: readonly string[];
}

/** An image to be scored together with a text. */
export interface CandidateImage {
  /** Hash of the file's content, see `imageId`. */
  readonly id: string;
  /** Decodes the encoder's input, float32 [3, size, size]. Called only if the features are not cached. */
  pixels(): Promise<Float32Array>;
}

export interface CandidatePair {
  readonly image: CandidateImage;
  readonly text: string;
}

/** Output of an image-text matching head. */
export interface MatchScore {
  /** Logit of the class "match". */
  readonly logit: number;
  /** Softmax probability of the class "match". */
  readonly probability: number;
}

export interface RetrievalModel {
  /** Preprocessing of the images. */
  readonly spec: ImageSpec;
  /** Shape of one image's embeddings, [count, size], each L2-normalized. */
  readonly shape: readonly [count: number, size: number];
  readonly fingerprint: ModelFingerprint;
  /**
   * Embeds a batch of images.
   * @param pixels the encoder's inputs, float32 [3, size, size] each
   * @param ids content hashes; if given, the features that `match` needs are cached under them
   * @returns float32 [images, ...shape]
   */
  embedImages(pixels: readonly Float32Array[], ids?: readonly string[]): Promise<Float32Array>;
  /**
   * Embeds texts, normalized like training captions: lower case, no punctuation, at most 50 words.
   * @returns one L2-normalized vector [size] per text
   * @throws RequestError if a text contains no word
   */
  embedTexts(texts: readonly string[]): Promise<Float32Array[]>;
  /** Scores image-text pairs with the matching head, if the model has one. @throws RequestError as `embedTexts` */
  match?(pairs: readonly CandidatePair[], signal?: AbortSignal): Promise<MatchScore[]>;
  /**
   * Mean log-likelihood of the tokens of each text given its image, if the model generates text.
   * @throws RequestError as `embedTexts`
   */
  captionLogLikelihoods?(pairs: readonly CandidatePair[], signal?: AbortSignal): Promise<number[]>;
  /** Frees the sessions and closes the weight files. */
  close(): Promise<void>;
}

/** Images per run of the encoder. */
export const imageBatchSize = 4;

/** A session that is created by its first run: searching a complete index never needs the image encoder. */
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

/** The encoder's graph input, float32 [images, 3, size, size]. */
export function pixelInput(graph: Graph, { imageSize }: EncoderConfig): Value {
  return graph.input("pixels", "float32", ["images", 3, imageSize, imageSize]);
}

/** Feeds of `pixelInput`. @param images float32 [3, size, size] each */
export function pixelFeeds(images: readonly Float32Array[], { imageSize }: EncoderConfig): Record<"pixels", NdArray> {
  const shape = [images.length, 3, imageSize, imageSize];
  return { pixels: ndarray("float32", shape, concatFloat32(images)) };
}
