/**
 * A model whose large constants are read where they lie in files. Loading it takes milliseconds and hardly any memory of its own, so that
 * a network in pieces can load each piece whenever it is needed. The price: nothing is packed in advance, each run packs its matrices anew.
 */
import type { Graph, Value } from "./graph.ts";
import { type Place, writeModel } from "./onnx.ts";
import { Session, type SessionOptions } from "./session.ts";
import { placeBelow } from "./weights-file.ts";

export class MappedModel<Output extends string> {
  private readonly folder: string;
  private readonly graph: Graph;
  private readonly model: Uint8Array;

  private constructor(folder: string, graph: Graph, model: Uint8Array) {
    this.folder = folder;
    this.graph = graph;
    this.model = model;
  }

  /**
   * The model that computes `outputs`.
   * @param folder constants that lie in files in it or below are mapped; all others are kept in memory
   */
  static async create<Output extends string>(
    graph: Graph,
    outputs: Readonly<Record<Output, Value>>,
    folder: string,
  ): Promise<MappedModel<Output>> {
    const place = async (_name: string, _load: unknown, stored?: Parameters<typeof placeBelow>[1]) =>
      stored && ((await placeBelow(folder, stored)) satisfies Place | undefined);
    return new MappedModel<Output>(folder, graph, await writeModel(graph, outputs, { place }));
  }

  /** Runs `use` with a session of the model, which is released afterwards. */
  async with<Result>(options: SessionOptions, use: (session: Session<Output>) => Promise<Result>): Promise<Result> {
    const session = await Session.mapped<Output>(this.model, this.folder, this.graph.inputs, options);
    try {
      return await use(session);
    } finally {
      await session.release();
    }
  }
}
