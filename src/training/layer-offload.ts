/** Layer offload: captions through a language model of which one layer at a time is in memory. */

import { totalmem } from "node:os";
import { join } from "node:path";
import { tokensPerImage } from "../models/minigpt4.ts";
import { Session, type SessionOptions } from "../runtime/session.ts";
import { type NdArray, ndarray } from "../tensor/array.ts";
import type { Value } from "../tensor/graph.ts";
import { layerBytes, OffloadedLlama } from "./offloaded-llama.ts";
import type { ModelParts } from "./parts.ts";
import type { MiniGPT4Recipe } from "./recipe.ts";
import { externalLossInputs } from "./stages/caption-loss.ts";
import type { ExternalLoss, Feeds } from "./stages/stage.ts";
import type { TrainingPrompt } from "./stages/texts.ts";

/** Folder of the layers in a run's folder. */
export const layersFolder = "layers";

/** Layers are offloaded where they would take more than this share of the memory. */
const memoryShare = 0.5;
/** Milliseconds between two progress messages. */
const messageInterval = 15_000;

/** The loss of captions through an offloaded language model. A graph computes the embeddings that it starts from. */
export class OffloadedLoss implements ExternalLoss {
  private readonly session: Session<"embeddings">;
  private readonly llama: OffloadedLlama;

  private constructor(session: Session<"embeddings">, llama: OffloadedLlama) {
    this.session = session;
    this.llama = llama;
  }

  /** @param embeddings [batch, sequence, hiddenSize], computed by a graph of its own */
  static async create(embeddings: Value, llama: OffloadedLlama, options: SessionOptions): Promise<OffloadedLoss> {
    const session = await Session.create(embeddings.graph, { embeddings }, { ...options, plansMemory: false });
    return new OffloadedLoss(session, llama);
  }

  /** The inputs of `externalLoss`. */
  async feeds(batch: Feeds): Promise<Record<string, NdArray>> {
    const { embeddings } = await this.session.run(batch);
    const share = Number(batch.targetShare?.data[0]);
    const { loss, gradient } = await this.llama.gradient(embeddings, batch, share);
    return {
      [externalLossInputs.loss]: ndarray("float32", [], Float32Array.of(loss)),
      [externalLossInputs.gradient]: gradient,
    };
  }

  /** As `tokenLosses`, [targets]. */
  async losses(batch: Feeds): Promise<Float32Array> {
    const { embeddings } = await this.session.run(batch);
    return this.llama.losses(embeddings, batch);
  }

  close(): Promise<void> {
    return this.session.close();
  }
}

export interface OffloadOptions {
  readonly session?: SessionOptions;
  readonly onMessage?: (message: string) => void;
  readonly signal?: AbortSignal;
}

/**
 * Writes the layers of a recipe's language model to the run's folder.
 * @returns undefined where the language model is small enough to stay in memory
 */
export async function openOffloaded(
  { model, run }: MiniGPT4Recipe,
  { config, llm }: Pick<ModelParts, "config" | "llm">,
  prompts: readonly TrainingPrompt[],
  { onMessage, signal, session = {} }: OffloadOptions,
): Promise<OffloadedLlama | undefined> {
  const quantization = model.llm_quantization;
  const bytes = layerBytes(llm.checkpoint, quantization);
  if (!(run.gradient_checkpointing ?? bytes > memoryShare * totalmem())) return undefined;
  const size = `${(bytes / 1e9).toFixed(1)} GB`;
  onMessage?.(`Layer offload: writing the language model's layers (${size}) to ${join(run.output_dir, layersFolder)}`);
  const started = Date.now();
  let reported = started;
  return OffloadedLlama.create(llm.checkpoint, config.llm, {
    folder: join(run.output_dir, layersFolder),
    quantization,
    positions: longestSequence(prompts, tokensPerImage(config), model.max_txt_len),
    session,
    signal,
    onProgress(done, total) {
      const now = Date.now();
      if (done === total || now - reported < messageInterval) return;
      reported = now;
      const left = Math.round(((now - started) / 1000 / done) * (total - done));
      onMessage?.(`Layer offload: ${done} of ${total} layers written, ${left} s left`);
    },
  });
}

/** Answers share the prompt and start at the same position, so only the longest one counts. */
function longestSequence(prompts: readonly TrainingPrompt[], tokensPerImage: number, maxAnswer: number): number {
  const lengths = prompts.map(({ pieces }) =>
    pieces.reduce((sum, piece) => sum + (piece === "image" ? tokensPerImage : piece.ids.length), 0),
  );
  return Math.max(...lengths) + maxAnswer;
}
