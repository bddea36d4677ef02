/** Models on disk that share a file of constants, each loaded as often as it is needed: a network in pieces. */
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Graph, Value } from "./graph.ts";
import { writeModel } from "./onnx.ts";
import { Session, type SessionOptions } from "./session.ts";
import { WeightsFile } from "./weights-file.ts";

/** `Outputs` names each model and its outputs: `{ forward: "y" | "z" }`. */
export class StoredModels<Outputs extends Readonly<Record<string, string>>> {
  private readonly folder: string;
  private readonly models: { readonly [Name in keyof Outputs]: { readonly graph: Graph } };

  private constructor(folder: string, models: StoredModels<Outputs>["models"]) {
    this.folder = folder;
    this.models = models;
  }

  /** Writes models into a folder. Constants of one name are taken to be the same in all of them. */
  static async write<Outputs extends Readonly<Record<string, string>>>(
    folder: string,
    models: {
      readonly [Name in keyof Outputs]: {
        readonly graph: Graph;
        readonly outputs: Readonly<Record<Outputs[Name], Value>>;
      };
    },
  ): Promise<StoredModels<Outputs>> {
    const weights = await WeightsFile.create(folder, "model.weights");
    try {
      for (const name of Object.keys(models)) {
        const { graph, outputs } = models[name as keyof Outputs];
        await writeFile(join(folder, `${name}.onnx`), await writeModel(graph, outputs, weights));
      }
    } finally {
      await weights.close();
    }
    return new StoredModels(folder, models);
  }

  /** Runs `use` with a session of the model, which is released afterwards. */
  async with<Name extends keyof Outputs & string, Result>(
    name: Name,
    options: SessionOptions,
    use: (session: Session<Outputs[Name]>) => Promise<Result>,
  ): Promise<Result> {
    const { graph } = this.models[name];
    const session = await Session.load<Outputs[Name]>(join(this.folder, `${name}.onnx`), graph.inputs, options);
    try {
      return await use(session);
    } finally {
      await session.release();
    }
  }
}
