/** Embeddings of images and texts: vectors of length 1, in which an image lies near the texts that fit it. */

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

/** Characters of a text that are read. Captions end after fifty words, but a word may be of any length. */
const longestText = 2000;

/** What makes embeddings, whatever kind of head it is. */
export interface Embedder extends AsyncDisposable {
  /** Numbers in an embedding. */
  readonly size: number;
  /** @param tokens what `ImageReader` gives for the image */
  embedImage(tokens: ImageTokens): Promise<Float32Array>;
  /**
   * Texts are read as captions are in training: lower-cased, without punctuation, fifty words at most.
   * @throws RequestError if a text is empty, or has no word that counts
   */
  embedTexts(texts: readonly string[]): Promise<Float32Array[]>;
  /** Frees the engine's memory. */
  close(): Promise<void>;
}

/**
 * The embedder of a model folder, which may be closed afterwards; undefined where the model has no contrastive head.
 * @throws Error naming the file whose weights do not fit
 */
export async function openEmbedder(
  folder: ModelFolder,
  options: SessionOptions = {},
): Promise<WordSpaceEmbedder | undefined> {
  const { contrastive, llm } = folder;
  if (!contrastive) return undefined;
  return WordSpaceEmbedder.create(
    { head: contrastive, llm: llm.checkpoint, tokenizer: llm.tokenizer },
    llm.config,
    tokensPerImage(folder.config),
    options,
  );
}

interface HeadParts {
  readonly head: WeightSource;
  readonly llm: WeightSource;
  readonly tokenizer: Tokenizer;
}

/** The head of `contrastive-head.ts`, in the space of the language model's words. */
export class WordSpaceEmbedder implements Embedder {
  readonly size: number;
  private readonly tokenizer: Tokenizer;
  private readonly images: Session<"embeddings">;
  private readonly texts: Session<"embeddings">;

  private constructor(size: number, tokenizer: Tokenizer, images: Session, texts: Session) {
    this.size = size;
    this.tokenizer = tokenizer;
    this.images = images;
    this.texts = texts;
  }

  /** The table of words is mapped from a file: only the rows that are looked up come into memory. */
  static async create(
    { head, llm, tokenizer }: HeadParts,
    config: LlamaConfig,
    tokensPerImage: number,
    options: SessionOptions = {},
  ): Promise<WordSpaceEmbedder> {
    const { hiddenSize } = config;
    const graphs = { images: new Graph(), texts: new Graph() };
    const tokens = graphs.images.input("tokens", "float32", [1, tokensPerImage, hiddenSize]);
    const ofImages = imageEmbedding(new Weights(graphs.images, head), tokens);
    const weights = new Weights(graphs.texts, head);
    const ofTexts = textEmbedding(weights, new Weights(graphs.texts, llm), textInputs(weights, "texts"), config);
    const images = await Session.create(graphs.images, { embeddings: ofImages }, options);
    try {
      const texts = await Session.create(graphs.texts, { embeddings: ofTexts }, options);
      return new WordSpaceEmbedder(hiddenSize, tokenizer, images, texts);
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

  /** One text after the other: that takes no longer, and the memory of one. */
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
    if (caption === "") throw new RequestError("invalid_request", "A text without any word has no embedding");
    const { embeddings } = await this.texts.run(textArrays([this.tokenizer.encode(` ${caption}`)]));
    const embedding = embeddings.data as Float32Array;
    if (embedding.every((value) => value === 0)) {
      throw new RequestError(
        "invalid_request",
        `No word of ${quote(caption)} says anything of an image, so it has no embedding`,
      );
    }
    return embedding;
  }
}
