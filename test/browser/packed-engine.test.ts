/** An exported model on ONNX Runtime Web generates the same text as in Node. */
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import * as ort from "onnxruntime-web";
import { afterAll, beforeAll, expect, test } from "vitest";
import { createOrtRunner } from "../../src/browser/ort-runner.ts";
import { exportWeb } from "../../src/convert/export-web.ts";
import type { Engine, GenerationEvent, GenerationRequest } from "../../src/engine/engine.ts";
import { imageFiles, loadEngine } from "../../src/engine/load-engine.ts";
import { createPackedEngine } from "../../src/engine/packed-engine.ts";
import { packedWeights } from "../../src/formats/packed.ts";
import { LanguageModel, languageGraph } from "../../src/generation/language-model.ts";
import { type ModelFolder, openModelFolder } from "../../src/models/model-folder.ts";
import { parseWebModel, type WebModel } from "../../src/models/web-model.ts";
import { Session } from "../../src/runtime/session.ts";
import type { Graph, Value } from "../../src/tensor/graph.ts";
import type { Quantization } from "../../src/tensor/quant/quantization.ts";
import type { WeightSource } from "../../src/tensor/weight-source.ts";
import { parsePackedTokenizer } from "../../src/tokenizers/packed.ts";
import { image } from "../helpers/cli-command.ts";
import { temporaryFolder, tinyModel } from "../helpers/tiny-model.ts";

const folder = temporaryFolder();
const model = tinyModel(folder);
const page = join(folder, "page");
mkdirSync(page);
writeFileSync(join(page, "index.html"), "<!doctype html><html><head><title>t</title></head></html>");
ort.env.wasm.numThreads = 1;

const createRunner = <Output extends string>(graph: Graph, outputs: Readonly<Record<Output, Value>>) =>
  createOrtRunner({ ort, device: "wasm" }, graph, outputs);

async function exported(quantization: WebModel["quantization"]) {
  const path = join(folder, quantization);
  await exportWeb(model, path, { page, name: "tiny", quantization });
  const json = parseWebModel(JSON.parse(readFileSync(join(path, "model.json"), "utf8")));
  const weights = Buffer.concat(json.weights.map(({ name }) => readFileSync(join(path, name))));
  const tokenizer = parsePackedTokenizer(JSON.parse(readFileSync(join(path, json.tokenizer.name), "utf8")));
  return { json, weights, tokenizer };
}

let exact: Awaited<ReturnType<typeof exported>>;
let opened: ModelFolder;
let here: Engine;
let there: Engine;
beforeAll(async () => {
  exact = await exported("float32");
  opened = await openModelFolder(model);
  here = await loadEngine(model, "tiny");
  const images = imageFiles();
  there = await createPackedEngine(exact.json, { ...exact, quantization: "float32", images, createRunner });
});
afterAll(async () => {
  await opened?.close();
  await here?.close();
  await there?.close();
});

async function answer(engine: Engine, question: GenerationRequest): Promise<GenerationEvent[]> {
  const events: GenerationEvent[] = [];
  for await (const event of engine.generate(question)) events.push(event);
  return events;
}

const cat = image("cat.jpg");
test.each<[string, GenerationRequest]>([
  ["a description", { turns: "describe", images: [cat], maxNewTokens: 24 }],
  ["an answer", { turns: [{ role: "user", text: "What is it?", images: 1 }], images: [cat], maxNewTokens: 24 }],
  ["a sampled answer", { turns: "describe", images: [cat], maxNewTokens: 12, temperature: 1, topP: 0.9, seed: 3 }],
])("%s is the same, token for token", async (_, question) => {
  const events = await answer(there, question);
  expect(events).toEqual(await answer(here, question));
  expect(events.find(({ kind }) => kind === "end")).toMatchObject({ tokens: expect.toSatisfy((n: number) => n >= 8) });
});

test("the model info and the tokenizer are the same", async () => {
  expect(there.model).toEqual(here.model);
  const { tokenizer } = opened.llm;
  for (const text of ["", "A photo of a cat.", "  naïve 猫 🐈\n###Human: <s>"]) {
    expect(exact.tokenizer.encode(text)).toEqual(tokenizer.encode(text));
  }
});

/** Scores of what follows a few tokens. */
async function scores(
  source: WeightSource,
  quantization: Quantization,
  create: typeof createRunner,
): Promise<Float32Array> {
  const { graph, outputs } = languageGraph(source, exact.json.config.llm, quantization);
  const llm = new LanguageModel(exact.json.config.llm, await create(graph, outputs));
  const { data } = await llm.forward([[5, 9, 30, 7, 64]], llm.newCache());
  await llm.close();
  return data;
}

const worst = (a: Float32Array, b: Float32Array) =>
  Math.max(...a.map((value, i) => Math.abs(value - (b[i] as number))));

test("scores agree between both runtimes, exactly stored and rounded, in float32 and in 4 bits", async () => {
  const { checkpoint } = opened.llm;
  const inNode: typeof createRunner = (graph, outputs) => Session.create(graph, outputs);
  const original = await scores(checkpoint, "float32", inNode);
  const source = ({ json, weights }: typeof exact) => packedWeights("tiny", json.tensors.llm, weights);
  expect(worst(await scores(source(exact), "float32", createRunner), original)).toBeLessThan(1e-4);

  const rounded = source(await exported("int4"));
  const [node, wasm] = [await scores(rounded, "float32", inNode), await scores(rounded, "float32", createRunner)];
  expect(worst(wasm, node)).toBeLessThan(1e-4);
  // Rounding is seen, and the model is still the same one.
  const spread = worst(original, new Float32Array(original.length));
  expect(worst(node, original)).toBeGreaterThan(1e-4);
  expect(worst(node, original)).toBeLessThan(spread / 2);
  // In 4 bits Node rounds activations to 8 bits.
  const inBlocks = await scores(rounded, "int4", createRunner);
  expect(worst(inBlocks, await scores(rounded, "int4", inNode))).toBeLessThan(spread / 10);
});
