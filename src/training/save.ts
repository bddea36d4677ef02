/** Writes the model folder of a finished run. */

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

/** Frozen weight files up to this size are copied to the folder, larger ones are referenced. */
const maxCopyBytes = 2 ** 27;

/** Writes the arrays that `isPart` selects as float16. */
async function writePart(path: string, arrays: NamedArrays, isPart: (name: string) => boolean): Promise<void> {
  const part = Object.entries(arrays).filter(([name]) => isPart(name));
  const halves = part.map(([name, { shape, data }]) => [name, ndarray("float16", shape, float32ToFloat16(data))]);
  await writeSafetensors(path, Object.fromEntries(halves));
}

/** Copies a file to the folder, or references it where it is large. @returns its path for the folder's config */
async function placeFile(path: string, folder: string, name: string): Promise<string> {
  const { size } = await stat(path);
  if (size > maxCopyBytes || !path.endsWith(".safetensors")) return relative(resolve(folder), resolve(path));
  const copy = join(folder, name);
  if (resolve(copy) === resolve(path)) return name;
  await copyFileAtomic(path, copy);
  return name;
}

/** Writes the model folder of a recipe: trained weights as float16, frozen ones copied or referenced. */
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
    qformer: model.qformer,
    llm: existsSync(model.llm) ? relative(resolve(folder), resolve(model.llm)) : model.llm,
    weights: { encoder, qformer, projection, contrastive },
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

/** Writes the contrastive head; undefined where it was not trained. */
async function headFile({ run, model }: MiniGPT4Recipe, trained: NamedArrays): Promise<string | undefined> {
  if (!trainsHead(model)) return undefined;
  const names: readonly string[] = Object.values(headNames);
  await writePart(join(run.output_dir, "contrastive.safetensors"), trained, (name) => names.includes(name));
  return "contrastive.safetensors";
}

/** Writes the Q-Former and the norm before it; undefined where the model has neither. */
async function qformerFile(
  { model, run }: MiniGPT4Recipe,
  parts: ModelParts,
  trained: NamedArrays,
): Promise<string | undefined> {
  const isQFormer = (name: string) => /^(query_tokens$|Qformer\.|ln_vision\.)/.test(name);
  // Without a Q-Former, no file has the norm of a ViT.
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
 * The prompt of `describe`. What a prompt has after the start of the answer, or after the image if it has none, begins
 * the description too: "A photo of" two dogs.
 */
function describePrompt(prompt: string, endSym: string, { answerMark }: PromptTemplate): ModelFolderJson["describe"] {
  const image = "<ImageHere>";
  const mark = answerMark === "" ? -1 : prompt.lastIndexOf(answerMark);
  const start = mark < 0 ? prompt.indexOf(image) + image.length : mark + answerMark.length;
  return { prompt: prompt.slice(0, start), begins_with: prompt.slice(start), stop: [endSym] };
}

/** Writes the folder of a pre-trained Q-Former, for image search and as `qformer_ckpt` of other recipes: weights as float16, and the vocabulary. */
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
  const { vocabulary, lowerCase } = parts.tokenizer;
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
  await write("tokenizer_config.json", JSON.stringify({ do_lower_case: lowerCase }));
  await write("config.json", JSON.stringify(json, null, 2));
}

/** Whether a weight comes after the frozen encoder. */
function isKept(name: string): boolean {
  return /^(query_tokens$|temp$|Qformer\.|ln_vision\.|vision_proj\.|text_proj\.|itm_head\.)/.test(name);
}
