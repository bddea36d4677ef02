/**
 * A model whose large constants are read where they lie in files. It is loaded anew for each run, which takes milliseconds, and has hardly
 * any memory in between: a network in pieces is run piece by piece, and what is seldom run need not stay. The price: nothing is packed in
 * advance, each run packs its matrices anew, which many rows at once are worth.
 */
import { realpath } from "node:fs/promises";
import type { NdArray } from "./array.ts";
import { largestInt8Weight, thisCpu } from "./cpu.ts";
import { type Device, executionProviders } from "./device.ts";
import type { Graph, StoredBytes, Value } from "./graph.ts";
import { writeModel } from "./onnx.ts";
import type { Runner } from "./runner.ts";
import { Session, type SessionOptions } from "./session.ts";
import { placeBelow } from "./weights-file.ts";

export class MappedModel<Output extends string> implements Runner<Output> {
  private readonly folder: string;
  private readonly graph: Graph;
  private readonly model: Uint8Array;
  private readonly options: SessionOptions;

  private constructor(folder: string, graph: Graph, model: Uint8Array, options: SessionOptions) {
    this.folder = folder;
    this.graph = graph;
    this.model = model;
    this.options = options;
  }

  /** Whether bytes can be multiplied as they lie: only on a processor, and not where their sums would overflow. */
  static isPossible(device: Device = "auto"): boolean {
    return executionProviders(device)[0] === "cpu" && largestInt8Weight(thisCpu()) === 127;
  }

  /**
   * The model that computes `outputs`.
   * @param folder constants that lie in files in it or below are mapped; all others are kept in memory
   */
  static async create<Output extends string>(
    graph: Graph,
    outputs: Readonly<Record<Output, Value>>,
    folder: string,
    options: SessionOptions = {},
  ): Promise<MappedModel<Output>> {
    const root = await realpath(folder);
    const place = async (_name: string, _load: unknown, stored?: StoredBytes) => stored && placeBelow(root, stored);
    const model = await writeModel(graph, outputs, { place });
    // A plan of memory is of use from the second run on.
    return new MappedModel<Output>(root, graph, model, { ...options, plansMemory: false });
  }

  async run(feeds: Readonly<Record<string, NdArray>>): Promise<Record<Output, NdArray>> {
    const session = await Session.mapped<Output>(this.model, this.folder, this.graph.inputs, this.options);
    try {
      return await session.run(feeds);
    } finally {
      await session.release();
    }
  }

  async release(): Promise<void> {}
}
