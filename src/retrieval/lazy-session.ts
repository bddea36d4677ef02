/** A session that is made when it is first needed: a search in a ready index has no use for the image encoder. */
import type { NdArray } from "../tensor/array.ts";
import { Graph, type Value } from "../tensor/graph.ts";
import { Session, type SessionOptions } from "../tensor/session.ts";

export class LazySession<Output extends string> {
  private readonly outputs: (graph: Graph) => Readonly<Record<Output, Value>>;
  private readonly options: SessionOptions;
  private session: Promise<Session<Output>> | undefined;

  /** @param outputs builds the graph */
  constructor(outputs: (graph: Graph) => Readonly<Record<Output, Value>>, options: SessionOptions) {
    this.outputs = outputs;
    this.options = options;
  }

  async run(feeds: Readonly<Record<string, NdArray>>): Promise<Record<Output, NdArray>> {
    this.session ??= this.create();
    return (await this.session).run(feeds);
  }

  async release(): Promise<void> {
    const session = await this.session?.catch(() => undefined);
    await session?.release();
  }

  private async create(): Promise<Session<Output>> {
    const graph = new Graph();
    return Session.create(graph, this.outputs(graph), this.options);
  }
}
