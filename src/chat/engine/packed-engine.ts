/** The engine of a model that was packed for pages: the same graphs as everywhere, run by whatever runs them there. */
import { packedWeights } from "../../checkpoints/packed-weights.ts";
import { imageWeights, tokensPerImage } from "../../models/minigpt4.ts";
import type { WebModel } from "../../models/web-model.ts";
import { Graph, type Value } from "../../tensor/graph.ts";
import type { Runner } from "../../tensor/runner.ts";
import { promptTemplates } from "../../text/prompts.ts";
import type { Tokenizer } from "../../text/vocabulary.ts";
import { imageOutputs, languageGraph } from "../graphs.ts";
import { ImageReader } from "../image-reader.ts";
import { LanguageModel } from "../language-model.ts";
import type { Precision } from "../reading-graph.ts";
import { ImageStore, type PictureSource } from "./image-store.ts";
import { LocalEngine } from "./local-engine.ts";

export interface PackedEngineParts {
  readonly tokenizer: Tokenizer;
  /** All weight files, one after the other. */
  readonly weights: Uint8Array;
  readonly precision: Precision;
  readonly pictures: PictureSource;
  /** Makes a graph ready to run. */
  createRunner<Output extends string>(graph: Graph, outputs: Readonly<Record<Output, Value>>): Promise<Runner<Output>>;
}

/** One who visits a page asks for one answer at a time, seldom for two. */
const schedule = { maxBatch: 2, prefixBytes: 2 ** 27 };

/** @throws Error if something does not fit together */
export async function createPackedEngine(
  model: WebModel,
  { tokenizer, weights, precision, pictures, createRunner }: PackedEngineParts,
): Promise<LocalEngine> {
  const { config, tensors } = model;
  const source = (part: keyof typeof tensors) => packedWeights(`The ${part} of ${model.name}`, tensors[part], weights);
  const graph = new Graph();
  const parts = { encoder: source("encoder"), qformer: source("qformer"), projection: source("projection") };
  const reader = await createRunner(graph, imageOutputs(graph, imageWeights(graph, parts), config));
  const reading = languageGraph(source("llm"), config.llm, precision);
  const llm = new LanguageModel(config.llm, await createRunner(reading.graph, reading.outputs));
  return new LocalEngine(
    {
      model: { name: model.name, contextLength: model.contextLength, tokensPerImage: tokensPerImage(config) },
      images: new ImageStore(new ImageReader(config, reader), pictures),
      llm,
      tokenizer,
      template: promptTemplates[model.template],
      describe: model.describe,
    },
    schedule,
  );
}
