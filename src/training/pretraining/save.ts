/** What a pre-training run leaves: a folder that retrieval takes, and other recipes as their `qformer_ckpt`. */
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { writeWhole } from "../../checkpoints/whole-file.ts";
import type { Blip2FolderJson } from "../../models/blip2-folder.ts";
import { ndarray } from "../../tensor/array.ts";
import type { NamedArrays } from "../checkpoints.ts";
import { placeFile, writePart } from "../weight-files.ts";
import type { QFormerParts } from "./parts.ts";
import type { QFormerRecipe } from "./recipe.ts";

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
  const write = (name: string, text: string) => writeWhole(join(folder, name), (file) => file.writeFile(`${text}\n`));
  await write("vocab.txt", vocabulary.join("\n"));
  await write("tokenizer_config.json", JSON.stringify({ do_lower_case: lowerCases }));
  await write("config.json", JSON.stringify(json, null, 2));
}

/** Everything behind the frozen encoder. */
function isKept(name: string): boolean {
  return /^(query_tokens$|temp$|Qformer\.|ln_vision\.|vision_proj\.|text_proj\.|itm_head\.)/.test(name);
}
