/** What finds pictures: a model that puts pictures and texts into one space. */
import type { ImageSpec } from "../images/preprocess.ts";

/** What a picture's vectors depend on, besides the picture. */
export interface Origin {
  /** Everything but the weights: dimensions, preprocessing, how vectors are made. */
  readonly settings: string;
  /** The files with the weights. */
  readonly files: readonly string[];
}

/** A picture that is looked at once more, beside a text. */
export interface KnownPicture {
  /** See `pictureId`. */
  readonly id: string;
  /** The encoder's input, [3, size, size]; asked for where nothing is kept of the picture. */
  pixels(): Promise<Float32Array>;
}

export interface Pair {
  readonly picture: KnownPicture;
  readonly text: string;
}

/** What a matching head says of a picture and a text. */
export interface Match {
  /** The score of "together". */
  readonly logit: number;
  /** Softmax of "apart" and "together". */
  readonly probability: number;
}

export interface Finder {
  /** How pictures are decoded for it. */
  readonly spec: ImageSpec;
  /** Vectors of one picture, [count, size], each of length 1. */
  readonly shape: readonly [count: number, size: number];
  readonly origin: Origin;
  /**
   * Vectors of some pictures, one after the other: [pictures, ...shape].
   * @param pixels the encoder's inputs, [3, size, size] each
   * @param ids under which it is kept what `match` needs of the pictures; left out, nothing is
   */
  embedPictures(pixels: readonly Float32Array[], ids?: readonly string[]): Promise<Float32Array>;
  /**
   * The vectors of texts, [size] each, of length 1. Texts are read as captions are in training: lower-cased, without punctuation,
   * fifty words at most. @throws QuestionError if one has no word, or none that counts
   */
  embedTexts(texts: readonly string[]): Promise<Float32Array[]>;
  /** Looks at pictures and texts together, where the model has a head for that. @throws QuestionError as `embedTexts` */
  match?(pairs: readonly Pair[], signal?: AbortSignal): Promise<Match[]>;
  /**
   * How likely the texts are to be generated from the pictures, where the model generates: the mean log-likelihood of a text's
   * tokens. @throws QuestionError as `embedTexts`
   */
  likelihoods?(pairs: readonly Pair[], signal?: AbortSignal): Promise<number[]>;
  /** Frees the engine's memory, and closes the files. */
  release(): Promise<void>;
}

/** Pictures that go through an encoder side by side. */
export const picturesAtOnce = 4;
