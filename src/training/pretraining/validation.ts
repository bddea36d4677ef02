/** The losses of pre-training on pictures that are not trained on. */
import { Session, type SessionOptions } from "../../tensor/session.ts";
import type { NamedArrays } from "../checkpoints.ts";
import { type HeldOut, loadHeldOut } from "../held-out.ts";
import { type Stage, stepRandom } from "../stages/stage.ts";
import { type PreparedQFormer, stageOf } from "./prepared.ts";

export class QFormerValidation implements HeldOut {
  private readonly prepared: PreparedQFormer;
  private readonly stage: Stage;
  private readonly session: Session<"loss">;

  private constructor(prepared: PreparedQFormer, stage: Stage, session: Session<"loss">) {
    this.prepared = prepared;
    this.stage = stage;
    this.session = session;
  }

  static async create(prepared: PreparedQFormer, options: SessionOptions): Promise<QFormerValidation> {
    const stage = stageOf(prepared, { isWatched: true });
    return new QFormerValidation(prepared, stage, await Session.create(stage.graph, { loss: stage.loss }, options));
  }

  /** The mean over batches as large as those of the run, whose texts and negatives are the same at each measurement. */
  async measure(weights: NamedArrays): Promise<number> {
    const { recipe, validation, frozen } = this.prepared;
    const { batch_size: size, seed } = recipe.run;
    const random = stepRandom(seed, 0);
    let [sum, count] = [0, 0];
    for (let start = 0; start < validation.length; start += size) {
      const part = await loadHeldOut(validation.slice(start, start + size), this.prepared);
      if (part.length === 0) continue;
      const composed = this.stage.compose(part, random);
      if (composed.targets === 0) continue;
      const features = await frozen.of(part.map(({ picture }) => picture));
      const feeds = composed.feeds(features, { targets: composed.targets, samples: part.length });
      const { loss } = await this.session.run({
        ...feeds,
        ...this.stage.exchange?.feeds(part.length, []),
        ...weights,
      });
      sum += (loss.data[0] as number) * part.length;
      count += part.length;
    }
    if (count === 0) throw new Error("None of the watched pictures can be read, or all their texts are empty");
    return sum / count;
  }

  release(): Promise<void> {
    return this.session.release();
  }
}
