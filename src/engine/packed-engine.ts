/** The engine of a model exported for the web: the same graphs as in Node, run by ONNX Runtime Web. */

import { packedWeights } from "../formats/packed.ts";
import { ImageEncoder, imageOutputs } from "../generation/image-encoder.ts";
import { LanguageModel, languageGraph } from "../generation/language-model.ts";
import { imageWeights, tokensPerImage } from "../models/minigpt4.ts";
import type { WebModel } from "../models/web-model.ts";
import type { Runner } from "../runtime/runner.ts";
import { Graph, type Value } from "../tensor/graph.ts";
import type { Quantization } from "../tensor/quant/quantization.ts";
import { promptTemplates } from "../tokenizers/prompts.ts";
import type { Tokenizer } from "../tokenizers/tokenizer.ts";
import { ImageCache, type ImageSource } from "./caches.ts";
import { LocalEngine } from "./local-engine.ts";

export interface PackedEngineParts {
  readonly tokenizer: Tokenizer;
  /** All weight files, concatenated. */
  readonly weights: Uint8Array;
  readonly quantization: Quantization;
  readonly images: ImageSource;
  /** Creates a session of a graph. */
  createRunner<Output extends string>(graph: Graph, outputs: Readonly<Record<Output, Value>>): Promise<Runner<Output>>;
}

/** A visitor of a page generates one text at a time, rarely two. */
const schedule = { maxBatch: 2, prefixBytes: 2 ** 27 };

/** Creates the engine. @throws Error if the parts do not match */
export async function createPackedEngine(
  model: WebModel,
  { tokenizer, weights, quantization, images, createRunner }: PackedEngineParts,
): Promise<LocalEngine> {
  const { config, tensors } = model;
  const source = (part: keyof typeof tensors) => packedWeights(`The ${part} of ${model.name}`, tensors[part], weights);
  const graph = new Graph();
  const parts = { encoder: source("encoder"), qformer: source("qformer"), projection: source("projection") };
  const imageRunner = await createRunner(graph, imageOutputs(graph, imageWeights(graph, parts), config));
  const language = languageGraph(source("llm"), config.llm, quantization);
  const llm = new LanguageModel(config.llm, await createRunner(language.graph, language.outputs));
  return new LocalEngine(
    {
      model: { name: model.name, contextLength: model.contextLength, tokensPerImage: tokensPerImage(config) },
      images: new ImageCache(new ImageEncoder(config, imageRunner), images),
      llm,
      tokenizer,
      template: promptTemplates[model.template],
      describe: model.describe,
    },
    schedule,
  );
}
