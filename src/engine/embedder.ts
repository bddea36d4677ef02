/** Embeddings of images and texts: L2-normalised vectors, in which an image is close to texts that describe it. */

import { RequestError } from "../errors.ts";
import { quote } from "../files/errors.ts";
import type { ImageTokens } from "../generation/image-encoder.ts";
import { imageEmbedding, textArrays, textEmbedding, textInputs } from "../models/contrastive-head.ts";
import type { LlamaConfig } from "../models/llama.ts";
import { tokensPerImage } from "../models/minigpt4.ts";
import type { ModelFolder } from "../models/model-folder.ts";
import { Weights } from "../nn/weights.ts";
import { Session, type SessionOptions } from "../runtime/session.ts";
import { concatFloat32, ndarray } from "../tensor/array.ts";
import { Graph } from "../tensor/graph.ts";
import type { WeightSource } from "../tensor/weight-source.ts";
import type { Tokenizer } from "../tokenizers/load.ts";
import { cleanCaption } from "../tokenizers/prompts.ts";

/** Longest text in characters; the rest is ignored. A caption has at most 50 words, but words have no limit. */
const longestText = 2000;

/** Computes embeddings. */
export interface Embedder extends AsyncDisposable {
  /** Dimensions of an embedding. */
  readonly size: number;
  /** Embeds an image. @param tokens its tokens from `ImageEncoder` */
  embedImage(tokens: ImageTokens): Promise<Float32Array>;
  /**
   * Embeds texts. They are cleaned as in training: lower-cased, without punctuation, at most 50 words.
   * @throws RequestError if a text has no words, or none with a weight above zero
   */
  embedTexts(texts: readonly string[]): Promise<Float32Array[]>;
  /** Frees the memory of the runtime. */
  close(): Promise<void>;
}

/**
 * Opens the embedder of a model folder; undefined if the model has no contrastive head. The folder may be closed afterwards.
 * @throws Error naming the file whose weights do not match
 */
export async function openEmbedder(
  folder: ModelFolder,
  options: SessionOptions = {},
): Promise<WordSpaceEmbedder | undefined> {
  const { contrastive, llm } = folder;
  if (!contrastive) return undefined;
  return WordSpaceEmbedder.create(
    {
      head: contrastive,
      llm: llm.checkpoint,
      config: llm.config,
      tokenizer: llm.tokenizer,
      tokensPerImage: tokensPerImage(folder.config),
    },
    options,
  );
}

interface HeadParts {
  readonly head: WeightSource;
  /** Weights of the language model; only its token embeddings are used. */
  readonly llm: WeightSource;
  readonly config: LlamaConfig;
  readonly tokenizer: Tokenizer;
  readonly tokensPerImage: number;
}

/** The contrastive head of `contrastive-head.ts`, which embeds images and texts in the space of the token embeddings. */
export class WordSpaceEmbedder implements Embedder {
  readonly size: number;
  private readonly tokenizer: Tokenizer;
  private readonly images: Session<"embeddings">;
  private readonly texts: Session<"embeddings">;

  private constructor(size: number, tokenizer: Tokenizer, sessions: { images: Session; texts: Session }) {
    this.size = size;
    this.tokenizer = tokenizer;
    this.images = sessions.images;
    this.texts = sessions.texts;
  }

  /** The token embeddings are mapped from their file: only rows that are used are read into memory. */
  static async create(
    { head, llm, config, tokenizer, tokensPerImage }: HeadParts,
    options: SessionOptions = {},
  ): Promise<WordSpaceEmbedder> {
    const { hiddenSize } = config;
    const graphs = { images: new Graph(), texts: new Graph() };
    const tokens = graphs.images.input("tokens", "float32", [1, tokensPerImage, hiddenSize]);
    const imageEmbeddings = imageEmbedding(new Weights(graphs.images, head), tokens);
    const weights = new Weights(graphs.texts, head);
    const textEmbeddings = textEmbedding(weights, new Weights(graphs.texts, llm), textInputs(weights, "texts"), config);
    const images = await Session.create(graphs.images, { embeddings: imageEmbeddings }, options);
    try {
      const texts = await Session.create(graphs.texts, { embeddings: textEmbeddings }, options);
      return new WordSpaceEmbedder(hiddenSize, tokenizer, { images, texts });
    } catch (error) {
      await images.close();
      throw error;
    }
  }

  async embedImage(tokens: ImageTokens): Promise<Float32Array> {
    const { embeddings } = await this.images.run({
      tokens: ndarray("float32", [1, tokens.length, this.size], concatFloat32(tokens)),
    });
    return embeddings.data as Float32Array;
  }

  /** One text at a time, which is as fast as a batch and takes the memory of one. */
  async embedTexts(texts: readonly string[]): Promise<Float32Array[]> {
    const all: Float32Array[] = [];
    for (const text of texts) all.push(await this.embedText(text));
    return all;
  }

  async close(): Promise<void> {
    await this.images.close();
    await this.texts.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  private async embedText(text: string): Promise<Float32Array> {
    const caption = cleanCaption(text.slice(0, longestText));
    if (caption === "") throw new RequestError("invalid_request", "The text has no words, so it has no embedding");
    const { embeddings } = await this.texts.run(textArrays([this.tokenizer.encode(` ${caption}`)]));
    const embedding = embeddings.data as Float32Array;
    if (embedding.every((value) => value === 0)) {
      throw new RequestError(
        "invalid_request",
        `No word of ${quote(caption)} has a weight in this model, so the text has no embedding`,
      );
    }
    return embedding;
  }
}
