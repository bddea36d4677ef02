/** Captions through a language model that is read layer by layer: what comes before it is a graph, its loss is fed to the step. */

import { totalmem } from "node:os";
import { join } from "node:path";
import { type MiniGPT4Config, type MiniGPT4Weights, tokensPerImage } from "../models/minigpt4.ts";
import { Session, type SessionOptions } from "../runtime/session.ts";
import { type NdArray, ndarray } from "../tensor/array.ts";
import { LayeredLlama, layeredBytes } from "./layered-llama.ts";
import type { ModelParts } from "./parts.ts";
import type { MiniGPT4Recipe } from "./recipe.ts";
import { knownNames, type LossOptions, sequenceEmbeddings } from "./stages/caption-loss.ts";
import type { Outside } from "./stages/stage.ts";
import type { TrainingPrompt } from "./stages/texts.ts";

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

  close(): Promise<void> {
    return this.before.close();
  }
}

// Whether a recipe's language model is trained through layer by layer, and the layers themselves.

/** Where the layers lie in a run's folder. */
export const layersFolder = "layers";

/** Weights that take more than this share of the memory are taken one layer at a time. */
const largestShare = 0.5;
/** Milliseconds between two messages of the preparation. */
const messageEvery = 15_000;

interface Options {
  readonly session?: SessionOptions;
  readonly onMessage?: ((message: string) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** The layers in the run's folder; undefined where the language model is one graph. */
export async function openLayered(
  { model, run }: MiniGPT4Recipe,
  { config, llm }: ModelParts,
  prompts: readonly TrainingPrompt[],
  { onMessage, signal, session = {} }: Options,
): Promise<LayeredLlama | undefined> {
  const precision = model.llm_precision;
  const bytes = layeredBytes(llm.checkpoint, precision);
  if (!(run.gradient_checkpointing ?? bytes > largestShare * totalmem())) return undefined;
  const size = `${(bytes / 1e9).toFixed(1)} GB`;
  onMessage?.(`The language model is trained through layer by layer; its layers take ${size} in ${run.output_dir}`);
  const started = Date.now();
  let told = started;
  return LayeredLlama.create(llm.checkpoint, config.llm, {
    folder: join(run.output_dir, layersFolder),
    precision,
    positions: longestSequence(prompts, tokensPerImage(config), model.max_txt_len),
    session,
    signal,
    onProgress(done, total) {
      const now = Date.now();
      if (done === total || now - told < messageEvery) return;
      told = now;
      const left = Math.round(((now - started) / 1000 / done) * (total - done));
      onMessage?.(`Layer ${done} of ${total} is ready, ${left} s left`);
    },
  });
}

/** Answers stand side by side behind the prompt, so the longest one counts. */
function longestSequence(prompts: readonly TrainingPrompt[], perImage: number, longestAnswer: number): number {
  const lengths = prompts.map(({ pieces }) =>
    pieces.reduce((sum, piece) => sum + (piece === "image" ? perImage : piece.ids.length), 0),
  );
  return Math.max(...lengths) + longestAnswer;
}
