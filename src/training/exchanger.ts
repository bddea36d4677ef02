/** What the batches of a step learn of each other before gradients are taken. */
import type { NdArray } from "../tensor/array.ts";
import { Session, type SessionOptions } from "../tensor/session.ts";
import type { Exchange } from "./stages/stage.ts";

type Feeds = Readonly<Record<string, NdArray>>;

/** A stage's exchange as a session. */
export class Exchanger {
  private readonly session: Session;

  private constructor(session: Session) {
    this.session = session;
  }

  static async create({ graph, outputs }: Exchange, options: SessionOptions): Promise<Exchanger> {
    return new Exchanger(await Session.create<string>(graph, outputs, options));
  }

  /** What the exchange's graph gives for each batch under these parameters. */
  async run(batches: readonly Feeds[], parameters: Feeds): Promise<Feeds[]> {
    const results: Feeds[] = [];
    for (const feeds of batches) results.push(await this.session.run({ ...feeds, ...parameters }));
    return results;
  }

  release(): Promise<void> {
    return this.session.release();
  }
}
