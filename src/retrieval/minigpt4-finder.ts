/** A MiniGPT-4 that has a contrastive head finds pictures: one vector a picture, in the space of the language model's words. */
import { type Embedder, openEmbedder } from "../chat/embedder.ts";
import type { ImageSpec } from "../images/preprocess.ts";
import { pictureEmbedding } from "../models/contrastive-head.ts";
import { imageFeatures, imageSpec, imageTokens } from "../models/minigpt4.ts";
import type { ModelFolder } from "../models/model-folder.ts";
import { Weights } from "../nn/weights.ts";
import type { SessionOptions } from "../tensor/session.ts";
import type { Finder, Origin } from "./finder.ts";
import { LazySession } from "./lazy-session.ts";
import { pixelFeeds, pixelInput } from "./pixels.ts";

export class MiniGPT4Finder implements Finder {
  readonly spec: ImageSpec;
  readonly shape: readonly [number, number];
  readonly origin: Origin;
  private readonly folder: ModelFolder;
  private readonly options: SessionOptions;
  private readonly pictures: LazySession<"embeddings">;
  private embedder: Promise<Embedder | undefined> | undefined;

  /** @param folder is closed with the finder. @throws Error if it has no contrastive head */
  constructor(folder: ModelFolder, options: SessionOptions = {}) {
    const { config, contrastive, imageSources } = folder;
    if (!contrastive)
      throw new Error(`${folder.path} has no contrastive head (weights.contrastive of its config.json)`);
    const { encoder, qformer, llm } = config;
    this.folder = folder;
    this.options = options;
    this.spec = imageSpec(encoder);
    this.shape = [1, llm.hiddenSize];
    this.origin = {
      settings: JSON.stringify({ head: "word space", encoder, qformer, spec: this.spec, width: llm.hiddenSize }),
      files: [...new Set([...Object.values(imageSources), contrastive].map(({ path }) => path))],
    };
    this.pictures = new LazySession((graph) => {
      const weights = folder.imageWeights(graph);
      const tokens = imageTokens(weights, imageFeatures(weights, pixelInput(graph, encoder), config), config);
      return { embeddings: pictureEmbedding(new Weights(graph, contrastive), tokens) };
    }, options);
  }

  async embedPictures(pixels: readonly Float32Array[]): Promise<Float32Array> {
    const { embeddings } = await this.pictures.run(pixelFeeds(pixels, this.folder.config.encoder));
    return embeddings.data as Float32Array;
  }

  async embedTexts(texts: readonly string[]): Promise<Float32Array[]> {
    this.embedder ??= openEmbedder(this.folder, this.options);
    return (await (await this.embedder)?.embedTexts(texts)) ?? [];
  }

  async release(): Promise<void> {
    const embedder = await this.embedder?.catch(() => undefined);
    await embedder?.release();
    await this.pictures.release();
    await this.folder.close();
  }
}
