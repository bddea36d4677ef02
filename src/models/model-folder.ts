/** Model folders: `config.json`, the weights of image encoder, Q-Former and projection, and the name or path of the language model. */
import { existsSync } from "node:fs";
import { join, resolve } from "node:path";
import { z } from "zod";
import { readJsonFile } from "../files/json-file.ts";
import { type Checkpoint, openCheckpoint } from "../formats/open.ts";
import { type PullOptions, pull } from "../hub/pull.ts";
import type { Graph } from "../tensor/graph.ts";
import { withCurrentQuantization } from "../tensor/quant/quantization.ts";
import { type PromptTemplate, promptTemplates } from "../tokenizers/prompts.ts";
import type { LlamaConfig } from "./llama.ts";
import { type OpenLlama, openLlama } from "./llama-folder.ts";
import { type ImageSources, type ImageWeights, imageWeights, type MiniGPT4Config, tokensPerImage } from "./minigpt4.ts";
import type { QFormerConfig } from "./qformer.ts";

const positive = z.number().int().positive();

/** The image encoder. A ViT has by default the dimensions of EVA-CLIP g/14 in BLIP-2 and MiniGPT-4. */
export const encoderSchema = z.discriminatedUnion("type", [
  z.strictObject({ type: z.literal("efficientnet_lite0"), image_size: positive.default(224) }),
  z.strictObject({
    type: z.literal("eva_vit"),
    image_size: positive.default(224),
    patch_size: positive.default(14),
    hidden_size: positive.default(1408),
    num_hidden_layers: positive.default(39),
    num_attention_heads: positive.default(16),
    intermediate_size: positive.default(6144),
    layer_norm_eps: z.number().positive().default(1e-6),
  }),
]);

/** The Q-Former, by default with the dimensions of the released one. */
export const qformerSchema = z.strictObject({
  num_query_tokens: positive.default(32),
  hidden_size: positive.default(768),
  num_hidden_layers: positive.default(12),
  num_attention_heads: positive.default(12),
  intermediate_size: positive.default(3072),
  encoder_width: positive.default(1408),
  cross_attention_frequency: positive.default(2),
  layer_norm_eps: z.number().positive().default(1e-12),
});

const schema = z.strictObject({
  model_type: z.literal("minigpt4"),
  encoder: encoderSchema,
  qformer: qformerSchema.optional(),
  /** A name that can be pulled, or the path of a GGUF file or folder, relative to this folder. */
  llm: z.string().min(1),
  /** Default quantization of the language model: as stored, or float32. Earlier versions wrote `precision`, with "stored" for "native". */
  quantization: z.enum(["float32", "native"]).default("float32"),
  weights: z.strictObject({
    encoder: z.string(),
    qformer: z.string().optional(),
    projection: z.string(),
    /** The contrastive head, of models that can embed. */
    contrastive: z.string().optional(),
  }),
  prompt_template: z.enum(Object.keys(promptTemplates) as [PromptTemplate["name"], ...PromptTemplate["name"][]]),
  /** Describing an image: the prompt with `<ImageHere>`, how the answer begins, and stop strings. */
  describe: z.strictObject({
    prompt: z.string().includes("<ImageHere>"),
    begins_with: z.string().default(""),
    stop: z.array(z.string()).default([]),
  }),
});

/** The JSON of a model folder's `config.json`. */
export type ModelFolderJson = z.input<typeof schema>;

/** How the model describes an image: the prompt with `<ImageHere>`, how the answer begins, and stop strings. */
export interface DescribePrompt {
  readonly prompt: string;
  readonly beginsWith: string;
  readonly stop: readonly string[];
}

/** An open model folder. Weights are read on demand. */
export interface ModelFolder extends AsyncDisposable {
  readonly path: string;
  readonly config: MiniGPT4Config;
  readonly llm: OpenLlama;
  /** Default quantization of the language model. */
  readonly quantization: "float32" | "native";
  readonly template: PromptTemplate;
  readonly describe: DescribePrompt;
  /** Weights of the contrastive head, if the model has one. */
  readonly contrastive?: Checkpoint;
  readonly imageSources: ImageSources;
  /** Weights of encoder, Q-Former and projection as values in a graph. */
  imageWeights(graph: Graph): ImageWeights;
  close(): Promise<void>;
}

/**
 * Opens a model folder. Its language model is downloaded if it is a name that is not in the cache.
 * @throws Error naming the file and what is wrong with it
 */
export async function openModelFolder(path: string, options: PullOptions = {}): Promise<ModelFolder> {
  const json = await readDescription(path);
  const llm = await openLlama(await findLlm(path, json.llm, options));
  const open = new Map<string, Checkpoint>();
  const close = async () => {
    await llm.checkpoint.close();
    for (const checkpoint of open.values()) await checkpoint.close();
  };
  try {
    for (const name of Object.values(json.weights)) {
      if (name && !open.has(name)) open.set(name, await openCheckpoint(resolve(path, name)));
    }
    const config = modelConfig(json, llm.config);
    tokensPerImage(config);
    const contrastive = open.get(json.weights.contrastive ?? "");
    const { encoder, projection, qformer = encoder } = json.weights;
    const weights = (name: string) => open.get(name) as Checkpoint;
    const imageSources = { encoder: weights(encoder), qformer: weights(qformer), projection: weights(projection) };
    return {
      path,
      config,
      llm,
      quantization: json.quantization,
      template: promptTemplates[json.prompt_template],
      describe: { prompt: json.describe.prompt, beginsWith: json.describe.begins_with, stop: json.describe.stop },
      contrastive,
      imageSources,
      imageWeights: (graph) => imageWeights(graph, imageSources),
      close,
      [Symbol.asyncDispose]: close,
    };
  } catch (cause) {
    await close();
    throw cause;
  }
}

/** Reads the `config.json` of a model folder. @throws Error naming the file and each key that is wrong */
export async function readDescription(path: string): Promise<z.infer<typeof schema>> {
  const { data, error } = schema.safeParse(withCurrentQuantization(await readFolderConfig(path, "minigpt4")));
  if (!data) throw new Error(`${configPath(path)} does not describe a MiniGPT-4:\n${z.prettifyError(error)}`);
  return data;
}

/** Reads the name of a model folder's prompt template. @throws Error as `openModelFolder` */
export async function readTemplateName(path: string): Promise<PromptTemplate["name"]> {
  return (await readDescription(path)).prompt_template;
}

/**
 * Downloads the language model of a model folder, if it is a name that is not in the cache.
 * @throws Error as `openModelFolder`
 */
export async function fetchLanguageModel(path: string, options: PullOptions = {}): Promise<void> {
  const { llm } = await readDescription(path);
  await findLlm(path, llm, options);
}

/** The path of a model folder's language model, which is downloaded if it is a name that is not in the cache. */
export async function findLlm(folder: string, name: string, options: PullOptions): Promise<string> {
  const path = resolve(folder, name);
  return existsSync(path) ? path : pull(name, options);
}

/** Types of model folders, with their names and uses for messages. */
const modelTypes = {
  minigpt4: { name: "a MiniGPT-4", usage: "`minigpt4 describe`, `chat`, `serve` and the other commands" },
  blip2_qformer: {
    name: "a pre-trained BLIP-2 Q-Former without a language model",
    usage:
      "`minigpt4 search`, `minigpt4 evaluate retrieval`, and recipes that load its weights (model.encoder_ckpt, model.qformer_ckpt)",
  },
} as const;

export type ModelType = keyof typeof modelTypes;

/** The path of a model folder's `config.json`. */
export const configPath = (folder: string) => join(folder, "config.json");

/** Reads the type of a model folder; undefined if it is another one or missing. @throws Error if the folder has no `config.json` */
export async function readModelType(folder: string): Promise<ModelType | undefined> {
  return parseModelType(await readConfig(folder));
}

/**
 * Reads a folder's `config.json`, without checking its keys.
 * @throws Error if the folder has none, or is of another type
 */
export async function readFolderConfig(folder: string, expected: ModelType): Promise<unknown> {
  const json = await readConfig(folder);
  const found = parseModelType(json);
  if (!found || found === expected) return json;
  const { name, usage } = modelTypes[found];
  throw new Error(`${folder} is ${name}, not ${modelTypes[expected].name}. Use it with ${usage}`);
}

async function readConfig(folder: string): Promise<unknown> {
  if (!existsSync(configPath(folder))) throw new Error(`${folder} is not a model folder: it has no config.json`);
  return readJsonFile(configPath(folder));
}

function parseModelType(json: unknown): ModelType | undefined {
  const schema = z.object({ model_type: z.enum(Object.keys(modelTypes) as [ModelType, ...ModelType[]]) });
  return schema.safeParse(json).data?.model_type;
}

/** The configuration of the networks from that of a folder. */
export function modelConfig(
  { encoder, qformer }: Pick<z.infer<typeof schema>, "encoder" | "qformer">,
  llm: LlamaConfig,
): MiniGPT4Config {
  return { encoder: encoderConfig(encoder), qformer: qformer && qformerConfig(qformer), llm };
}

export function encoderConfig(json: z.infer<typeof encoderSchema>): MiniGPT4Config["encoder"] {
  if (json.type === "efficientnet_lite0") return { type: json.type, imageSize: json.image_size };
  return {
    type: json.type,
    imageSize: json.image_size,
    patchSize: json.patch_size,
    hiddenSize: json.hidden_size,
    numHiddenLayers: json.num_hidden_layers,
    numAttentionHeads: json.num_attention_heads,
    intermediateSize: json.intermediate_size,
    layerNormEps: json.layer_norm_eps,
  };
}

export function qformerConfig(json: z.infer<typeof qformerSchema>): QFormerConfig {
  return {
    numQueryTokens: json.num_query_tokens,
    hiddenSize: json.hidden_size,
    numHiddenLayers: json.num_hidden_layers,
    numAttentionHeads: json.num_attention_heads,
    intermediateSize: json.intermediate_size,
    encoderWidth: json.encoder_width,
    crossAttentionFrequency: json.cross_attention_frequency,
    layerNormEps: json.layer_norm_eps,
  };
}

/**
 * The error message for a projection that was trained for another language model.
 * @param projection its path, and the widths that it projects `from` and `to`
 */
export function projectionMismatch(
  projection: { readonly path: string; readonly to: number; readonly from: number },
  llm: { readonly path: string; readonly width: number },
): string {
  return (
    `${projection.path} and ${llm.path} do not match: llama_proj.weight is [${projection.to}, ${projection.from}], for a language ` +
    `model of width ${formatWidth(projection.to)}, but this one has width ${formatWidth(llm.width)}`
  );
}

/** A width, with the size of the LLaMA that has it. */
function formatWidth(width: number): string {
  const names: Readonly<Record<number, string>> = { 4096: "7B", 5120: "13B", 6656: "30B", 8192: "65B" };
  return names[width] ? `${width} (${names[width]})` : `${width}`;
}
