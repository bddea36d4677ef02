/** What a run leaves: a model folder that can be used at once. */

import { existsSync } from "node:fs";
import { mkdir, stat } from "node:fs/promises";
import { join, relative, resolve } from "node:path";
import { copyFileAtomic, writeFileAtomic } from "../files/atomic.ts";
import { writeJsonFile } from "../files/json-file.ts";
import { writeSafetensors } from "../formats/safetensors.ts";
import type { Blip2FolderJson } from "../models/blip2-folder.ts";
import { headNames } from "../models/contrastive-head.ts";
import type { ModelFolderJson } from "../models/model-folder.ts";
import { isTextSide } from "../models/qformer.ts";
import { ndarray } from "../tensor/array.ts";
import { float32ToFloat16 } from "../tensor/float16.ts";
import { type PromptTemplate, promptTemplates } from "../tokenizers/prompts.ts";
import type { NamedArrays } from "./checkpoints.ts";
import type { ModelParts, QFormerParts } from "./parts.ts";
import { type MiniGPT4Recipe, type QFormerRecipe, trainsHead } from "./recipe.ts";
import { readPrompts } from "./stages/texts.ts";

// Weight files of the folder that a run leaves.

/** Frozen files up to this size are copied into the folder, larger ones are referred to. */
const largestCopy = 2 ** 27;

/** Writes those arrays that `isPart` names, as float16. */
async function writePart(path: string, arrays: NamedArrays, isPart: (name: string) => boolean): Promise<void> {
  const part = Object.entries(arrays).filter(([name]) => isPart(name));
  const halves = part.map(([name, { shape, data }]) => [name, ndarray("float16", shape, float32ToFloat16(data))]);
  await writeSafetensors(path, Object.fromEntries(halves));
}

/** Copies a file into the folder, or refers to it where it is large. @returns the file as the folder's config names it */
async function placeFile(path: string, folder: string, name: string): Promise<string> {
  const { size } = await stat(path);
  if (size > largestCopy || !path.endsWith(".safetensors")) return relative(resolve(folder), resolve(path));
  const copy = join(folder, name);
  if (resolve(copy) === resolve(path)) return name;
  await copyFileAtomic(path, copy);
  return name;
}

/** Writes the model folder of a recipe: trained weights as float16 in files of their own, frozen ones from their files. */
export async function saveModelFolder(recipe: MiniGPT4Recipe, parts: ModelParts, trained: NamedArrays): Promise<void> {
  const { model, run } = recipe;
  const folder = run.output_dir;
  await mkdir(folder, { recursive: true });
  const encoder = await placeFile(model.encoder_ckpt, folder, "encoder.safetensors");
  const projection = await projectionFile(recipe, parts, trained);
  const contrastive = await headFile(recipe, trained);
  const qformer = await qformerFile(recipe, parts, trained);
  const [prompt] = await readPrompts(recipe, parts.llm.tokenizer);
  const template = promptTemplates[model.conversation as PromptTemplate["name"]];
  const json: ModelFolderJson = {
    model_type: "minigpt4",
    encoder: model.encoder,
    ...(model.qformer && { qformer: model.qformer }),
    llm: existsSync(model.llm) ? relative(resolve(folder), resolve(model.llm)) : model.llm,
    weights: { encoder, ...(qformer && { qformer }), projection, ...(contrastive && { contrastive }) },
    prompt_template: template.name,
    describe: describePrompt(prompt?.text ?? "<ImageHere>", prompt?.endSym ?? model.end_sym, template),
  };
  await writeJsonFile(join(folder, "config.json"), json);
}

async function projectionFile({ run }: MiniGPT4Recipe, { origins }: ModelParts, trained: NamedArrays): Promise<string> {
  const name = "projection.safetensors";
  const isProjection = (tensor: string) => tensor.startsWith("llama_proj.");
  if (origins.projection !== undefined && !Object.keys(trained).some(isProjection)) {
    return placeFile(origins.projection, run.output_dir, name);
  }
  await writePart(join(run.output_dir, name), trained, isProjection);
  return name;
}

/** The file of the contrastive head, where it was trained. */
async function headFile({ run, model }: MiniGPT4Recipe, trained: NamedArrays): Promise<string | undefined> {
  if (!trainsHead(model)) return undefined;
  const names: readonly string[] = Object.values(headNames);
  await writePart(join(run.output_dir, "contrastive.safetensors"), trained, (name) => names.includes(name));
  return "contrastive.safetensors";
}

/** The file of a model folder that holds the Q-Former and the norm before it; none where neither is used. */
async function qformerFile(
  { model, run }: MiniGPT4Recipe,
  parts: ModelParts,
  trained: NamedArrays,
): Promise<string | undefined> {
  const isQFormer = (name: string) => /^(query_tokens$|Qformer\.|ln_vision\.)/.test(name);
  // Of a ViT without a Q-Former, the norm is in no file.
  const isNew = parts.image.tensors.has("ln_vision.weight") && parts.origins.ln_vision === undefined;
  if (!isNew && !Object.keys(trained).some(isQFormer)) {
    const origin = parts.origins.qformer ?? model.qformer_ckpt;
    return origin === undefined ? undefined : placeFile(origin, run.output_dir, "qformer.safetensors");
  }
  const all: NamedArrays = { ...trained };
  for (const [name, { shape }] of parts.image.tensors) {
    if (isQFormer(name) && !isTextSide(name) && !all[name])
      all[name] = ndarray("float32", shape, await parts.image.readFloat32(name));
  }
  await writePart(join(run.output_dir, "qformer.safetensors"), all, isQFormer);
  return "qformer.safetensors";
}

/**
 * The words that a prompt puts into the mouth of the assistant are said again before a description: "A photo of" two dogs.
 * They come after the mark of an answer or, where there is none, after the image.
 */
function describePrompt(prompt: string, endSym: string, { answerMark }: PromptTemplate): ModelFolderJson["describe"] {
  const image = "<ImageHere>";
  const mark = answerMark === "" ? -1 : prompt.lastIndexOf(answerMark);
  const start = mark < 0 ? prompt.indexOf(image) + image.length : mark + answerMark.length;
  return { prompt: prompt.slice(0, start), begins_with: prompt.slice(start), stop: [endSym] };
}

// What a pre-training run leaves: a folder that retrieval takes, and other recipes as their `qformer_ckpt`.

/** Writes the folder of a recipe: Q-Former, heads and `ln_vision` as float16, the encoder from its file, the vocabulary. */
export async function saveQFormerFolder(
  recipe: QFormerRecipe,
  parts: QFormerParts,
  trained: NamedArrays,
): Promise<void> {
  const { model, run } = recipe;
  const folder = run.output_dir;
  await mkdir(folder, { recursive: true });
  const encoder = await placeFile(model.encoder_ckpt, folder, "encoder.safetensors");
  const all: NamedArrays = { ...trained };
  for (const [name, { shape }] of parts.image.tensors) {
    if (isKept(name) && !all[name]) all[name] = ndarray("float32", shape, await parts.image.readFloat32(name));
  }
  await writePart(join(folder, "qformer.safetensors"), all, isKept);
  const { vocabulary, lowerCases } = parts.tokenizer;
  const json: Blip2FolderJson = {
    model_type: "blip2_qformer",
    encoder: model.encoder,
    qformer: {
      ...model.qformer,
      vocab_size: parts.tokenizer.size,
      max_position_embeddings: model.max_position_embeddings,
    },
    embed_dim: model.embed_dim,
    max_txt_len: model.max_txt_len,
    weights: { encoder, qformer: "qformer.safetensors" },
  };
  const write = (name: string, text: string) => writeFileAtomic(join(folder, name), `${text}\n`);
  await write("vocab.txt", vocabulary.join("\n"));
  await write("tokenizer_config.json", JSON.stringify({ do_lower_case: lowerCases }));
  await write("config.json", JSON.stringify(json, null, 2));
}

/** Everything behind the frozen encoder. */
function isKept(name: string): boolean {
  return /^(query_tokens$|temp$|Qformer\.|ln_vision\.|vision_proj\.|text_proj\.|itm_head\.)/.test(name);
}
