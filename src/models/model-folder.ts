/** A MiniGPT-4 on disk: `config.json`, the weights of encoder, Q-Former and projection, and the name of its language model. */
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

// `config.json` of a folder with a model: which kind of model it says that it is.

/** The kinds of folders that a run leaves: what they are, and who takes them, for messages. */
const kinds = {
  minigpt4: { is: "a MiniGPT-4", takenBy: "`minigpt4 describe`, `chat`, `serve` and the other commands" },
  blip2_qformer: {
    is: "a Q-Former as BLIP-2 pre-trains it, without a language model",
    takenBy:
      "`minigpt4 search` and `minigpt4 evaluate retrieval`, and recipes take its weights (model.encoder_ckpt, model.qformer_ckpt)",
  },
} as const;

export type ModelType = keyof typeof kinds;

/** Where a model folder is described. */
export const folderJson = (path: string) => join(path, "config.json");

/** The kind that a folder says it is; undefined where it says another one, or none. @throws Error if it has no `config.json` */
export async function modelType(path: string): Promise<ModelType | undefined> {
  return typeOf(await read(path));
}

/**
 * The content of a folder's `config.json`, which has still to be checked.
 * @throws Error if there is none, or if the folder is of the other kind
 */
export async function readFolderJson(path: string, wanted: ModelType): Promise<unknown> {
  const json = await read(path);
  const found = typeOf(json);
  if (!found || found === wanted) return json;
  throw new Error(`${path} is ${kinds[found].is}, not ${kinds[wanted].is}; it is for ${kinds[found].takenBy}`);
}

async function read(path: string): Promise<unknown> {
  if (!existsSync(folderJson(path))) throw new Error(`${path} is no model folder: it has no config.json`);
  return readJsonFile(folderJson(path));
}

const typed = z.object({ model_type: z.enum(Object.keys(kinds) as [ModelType, ...ModelType[]]) });

function typeOf(json: unknown): ModelType | undefined {
  return typed.safeParse(json).data?.model_type;
}

const positive = z.number().int().positive();

/** Of a ViT, the dimensions of EVA-CLIP g/14 as BLIP-2 and MiniGPT-4 use it, unless others are given. */
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

/** The dimensions of the released Q-Former, unless others are given. */
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
  /** A known name, or a GGUF file or folder, relative to this folder. */
  llm: z.string().min(1),
  /** How the language model's matrices are used by default: as its file stores them, or in float32. Earlier versions wrote `precision`, with "stored" for "native". */
  quantization: z.enum(["float32", "native"]).default("float32"),
  weights: z.strictObject({
    encoder: z.string(),
    qformer: z.string().optional(),
    projection: z.string(),
    /** The contrastive head, of models that have embeddings. */
    contrastive: z.string().optional(),
  }),
  prompt_template: z.enum(Object.keys(promptTemplates) as [PromptTemplate["name"], ...PromptTemplate["name"][]]),
  /** How a description is asked for: a prompt with `<ImageHere>`, the words the answer begins with, and where it ends. */
  describe: z.strictObject({
    prompt: z.string().includes("<ImageHere>"),
    begins_with: z.string().default(""),
    stop: z.array(z.string()).default([]),
  }),
});

/** The JSON of a model folder's `config.json`. */
export type ModelFolderJson = z.input<typeof schema>;

export interface DescribePrompt {
  readonly prompt: string;
  readonly beginsWith: string;
  readonly stop: readonly string[];
}

export interface ModelFolder extends AsyncDisposable {
  readonly path: string;
  readonly config: MiniGPT4Config;
  readonly llm: OpenLlama;
  /** How the language model's matrices are used by default. */
  readonly quantization: "float32" | "native";
  readonly template: PromptTemplate;
  readonly describe: DescribePrompt;
  /** Weights of the contrastive head, where the model has one. */
  readonly contrastive?: Checkpoint;
  readonly imageSources: ImageSources;
  /** Weights of encoder, Q-Former and projection as values of a graph. */
  imageWeights(graph: Graph): ImageWeights;
  close(): Promise<void>;
}

/**
 * Opens a model folder; its language model is fetched if it is a known name that is not in the cache yet.
 * @throws Error naming the file and what is wrong, also if projection and language model do not fit each other
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
    const at = (name: string) => open.get(name) as Checkpoint;
    const imageSources = { encoder: at(encoder), qformer: at(qformer), projection: at(projection) };
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

/** What a model folder's `config.json` says. @throws Error naming the file and each key that is wrong */
export async function readDescription(path: string): Promise<z.infer<typeof schema>> {
  const { data, error } = schema.safeParse(withCurrentQuantization(await readFolderJson(path, "minigpt4")));
  if (!data) throw new Error(`${folderJson(path)} is no description of a MiniGPT-4:\n${z.prettifyError(error)}`);
  return data;
}

/** How a model folder's conversations are written. @throws Error as `openModelFolder` */
export async function templateName(path: string): Promise<PromptTemplate["name"]> {
  return (await readDescription(path)).prompt_template;
}

/**
 * Fetches the language model of a model folder into the cache, if it is a known name and not there yet.
 * @throws Error as `openModelFolder`
 */
export async function fetchLanguageModel(path: string, options: PullOptions = {}): Promise<void> {
  const { llm } = await readDescription(path);
  await findLlm(path, llm, options);
}

/** Where the language model that a model folder names lies; fetched if it is a known name and not in the cache. */
export async function findLlm(folder: string, name: string, options: PullOptions): Promise<string> {
  const path = resolve(folder, name);
  return existsSync(path) ? path : pull(name, options);
}

/** The dimensions of the whole model. */
export function modelConfig(
  { encoder, qformer }: Pick<z.infer<typeof schema>, "encoder" | "qformer">,
  llm: LlamaConfig,
): MiniGPT4Config {
  return { encoder: encoderConfig(encoder), ...qformerConfig(qformer), llm };
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

export function qformerConfig(json: z.infer<typeof qformerSchema> | undefined): Pick<MiniGPT4Config, "qformer"> {
  return json ? { qformer: qformerDimensions(json) } : {};
}

export function qformerDimensions(json: z.infer<typeof qformerSchema>): QFormerConfig {
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

// A projection that was made for another language model, told with both sides.

/** @param projection what it projects from and to */
export function misfit(
  projection: { readonly path: string; readonly to: number; readonly from: number },
  llm: { readonly path: string; readonly width: number },
): string {
  return (
    `${projection.path} and ${llm.path} do not fit: llama_proj.weight is [${projection.to}, ${projection.from}], for a language ` +
    `model of width ${sized(projection.to)}, but this one has width ${sized(llm.width)}`
  );
}

/** A width, with the usual name of a LLaMA that has it. */
function sized(width: number): string {
  const names: Readonly<Record<number, string>> = { 4096: "7B", 5120: "13B", 6656: "30B", 8192: "65B" };
  return names[width] ? `${width} (${names[width]})` : `${width}`;
}
