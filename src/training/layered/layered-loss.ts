/** Captions through a language model that is read layer by layer: what comes before it is a graph, its loss is fed to the step. */
import type { MiniGPT4Config, MiniGPT4Weights } from "../../models/minigpt4.ts";
import { type NdArray, ndarray } from "../../tensor/array.ts";
import { Session, type SessionOptions } from "../../tensor/session.ts";
import { knownNames, type LossOptions, sequenceEmbeddings } from "../stages/loss.ts";
import type { Outside } from "../stages/stage.ts";
import type { LayeredLlama } from "./layered-llama.ts";

type Feeds = Readonly<Record<string, NdArray>>;

export class LayeredLoss implements Outside {
  private readonly before: Session<"embeddings">;
  private readonly llama: LayeredLlama;

  private constructor(before: Session<"embeddings">, llama: LayeredLlama) {
    this.before = before;
    this.llama = llama;
  }

  /** @param w weights of a graph of their own */
  static async create(
    w: MiniGPT4Weights,
    config: MiniGPT4Config,
    llama: LayeredLlama,
    { session, ...options }: LossOptions & { readonly session: SessionOptions },
  ): Promise<LayeredLoss> {
    const embeddings = sequenceEmbeddings(w, config, options);
    const plansNothing = { ...session, plansMemory: false };
    return new LayeredLoss(await Session.create(w.llm.graph, { embeddings }, plansNothing), llama);
  }

  /** As `tokenLosses`, [targets]. */
  async tokenLosses(feeds: Feeds): Promise<Float32Array> {
    const { embeddings } = await this.before.run(feeds);
    return this.llama.losses(embeddings, feeds);
  }

  /** What `knownLoss` is fed for a batch. */
  async feeds(batch: Feeds, parameters: Feeds): Promise<Record<string, NdArray>> {
    const { embeddings } = await this.before.run({ ...batch, ...parameters });
    const share = Number(batch.targetShare?.data[0]);
    const { loss, gradient } = await this.llama.gradient(embeddings, batch, share);
    return {
      [knownNames.loss]: ndarray("float32", [], Float32Array.of(loss)),
      [knownNames.gradient]: gradient,
    };
  }

  release(): Promise<void> {
    return this.before.release();
  }
}
