/** Opens a model for retrieval: a MiniGPT-4 with a contrastive head, or a Q-Former pre-trained as in BLIP-2. */
import { modelPath } from "../chat/models.ts";
import { type Embedder, openEmbedder } from "../engine/embedder.ts";
import type { PullOptions } from "../hub/pull.ts";
import type { ImageSpec } from "../images/preprocess.ts";
import { openBlip2Folder } from "../models/blip2-folder.ts";
import { imageEmbedding } from "../models/contrastive-head.ts";
import { imageFeatures, imageSpec, imageTokens } from "../models/minigpt4.ts";
import { type ModelFolder, openModelFolder, readModelType } from "../models/model-folder.ts";
import { Weights } from "../nn/weights.ts";
import type { SessionOptions } from "../runtime/session.ts";
import { Blip2RetrievalModel, type Blip2RetrievalOptions } from "./blip2-retrieval-model.ts";
import { LazySession, type ModelFingerprint, pixelFeeds, pixelInput, type RetrievalModel } from "./retrieval-model.ts";

export interface RetrievalModelOptions extends Blip2RetrievalOptions {
  /** How missing files are fetched. */
  readonly pull?: PullOptions;
}

/**
 * @param nameOrFolder a MiniGPT-4 with a contrastive head (`"nano"` has one), or the folder of a pre-trained Q-Former
 * @throws Error naming the file or head that is missing or does not fit
 */
export async function openRetrievalModel(
  nameOrFolder: string,
  { pull, ...options }: RetrievalModelOptions = {},
): Promise<RetrievalModel> {
  const path = modelPath(nameOrFolder);
  if ((await readModelType(path)) === "blip2_qformer")
    return new Blip2RetrievalModel(await openBlip2Folder(path), options);
  const { features: _, onMessage: __, ...session } = options;
  const folder = await openModelFolder(path, pull);
  try {
    return new MiniGPT4RetrievalModel(folder, session);
  } catch (error) {
    await folder.close();
    throw error;
  }
}

/** A MiniGPT-4 with a contrastive head: one vector per image, in the embedding space of the language model's tokens. */
export class MiniGPT4RetrievalModel implements RetrievalModel {
  readonly spec: ImageSpec;
  readonly shape: readonly [number, number];
  readonly fingerprint: ModelFingerprint;
  private readonly folder: ModelFolder;
  private readonly options: SessionOptions;
  private readonly images: LazySession<"embeddings">;
  private embedder: Promise<Embedder | undefined> | undefined;

  /** @param folder closed by `close()`. @throws Error if it has no contrastive head */
  constructor(folder: ModelFolder, options: SessionOptions = {}) {
    const { config, contrastive, imageSources } = folder;
    if (!contrastive)
      throw new Error(`${folder.path} has no contrastive head (weights.contrastive of its config.json)`);
    const { encoder, qformer, llm } = config;
    this.folder = folder;
    this.options = options;
    this.spec = imageSpec(encoder);
    this.shape = [1, llm.hiddenSize];
    this.fingerprint = {
      // Index files contain this string: keep its keys, their order and the name of the head.
      settings: JSON.stringify({ head: "word space", encoder, qformer, spec: this.spec, width: llm.hiddenSize }),
      files: [...new Set([...Object.values(imageSources), contrastive].map(({ path }) => path))],
    };
    this.images = new LazySession((graph) => {
      const weights = folder.imageWeights(graph);
      const tokens = imageTokens(weights, imageFeatures(weights, pixelInput(graph, encoder), config), config);
      return { embeddings: imageEmbedding(new Weights(graph, contrastive), tokens) };
    }, options);
  }

  async embedImages(pixels: readonly Float32Array[]): Promise<Float32Array> {
    const { embeddings } = await this.images.run(pixelFeeds(pixels, this.folder.config.encoder));
    return embeddings.data as Float32Array;
  }

  async embedTexts(texts: readonly string[]): Promise<Float32Array[]> {
    this.embedder ??= openEmbedder(this.folder, this.options);
    return (await (await this.embedder)?.embedTexts(texts)) ?? [];
  }

  async close(): Promise<void> {
    const embedder = await this.embedder?.catch(() => undefined);
    await embedder?.close();
    await this.images.close();
    await this.folder.close();
  }
}
