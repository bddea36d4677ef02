/** The folder of a pre-trained Q-Former, with the small random weights of the golden set and a vocabulary of words of two letters. */
import { mkdirSync, writeFileSync } from "node:fs";
import { join, relative } from "node:path";
import { openCheckpoint } from "../../src/formats/open.ts";
import { writeSafetensors } from "../../src/formats/safetensors.ts";
import type { Blip2FolderJson } from "../../src/models/blip2-folder.ts";
import { type NdArray, ndarray } from "../../src/tensor/array.ts";
import { goldenEncoder, goldenQFormer } from "./golden-dimensions.ts";
import { goldenRoot } from "./golden-set.ts";

/** Words of the golden set's table, [DEC] not counted. */
const words = 1000;

/** Writes such a folder below `parent`; the folder. @param change the JSON of its config */
export function tinyBlip2(
  parent: string,
  name = "blip2",
  change: (own: Blip2FolderJson) => Partial<Blip2FolderJson> = () => ({}),
): string {
  const folder = join(parent, name);
  mkdirSync(folder);
  const golden = (file: string) => relative(folder, join(goldenRoot, "mha", file));
  const config: Blip2FolderJson = {
    model_type: "blip2_qformer",
    encoder: goldenEncoder,
    qformer: { ...goldenQFormer, vocab_size: words + 1, max_position_embeddings: 64 },
    embed_dim: 32,
    max_txt_len: 16,
    weights: { encoder: golden("eva_vit.pth"), qformer: golden("blip2_qformer.pth") },
  };
  writeFileSync(join(folder, "config.json"), JSON.stringify({ ...config, ...change(config) }));
  const special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
  const letters = [..."abcdefghijklmnopqrstuvwxyz"];
  const pieces = letters.flatMap((letter) => [letter, `##${letter}`]);
  const pairs = letters.flatMap((first) => letters.map((second) => first + second));
  const vocabulary = [...special, ...pieces, ...pairs, ...pairs.map((pair) => `##${pair}`)].slice(0, words);
  writeFileSync(join(folder, "vocab.txt"), `${vocabulary.join("\n")}\n`);
  writeFileSync(join(folder, "tokenizer_config.json"), JSON.stringify({ do_lower_case: true }));
  return folder;
}

/** Writes the golden Q-Former with some of its weights changed. */
export async function writeQFormer(
  path: string,
  change: (name: string, values: Float32Array) => Float32Array | undefined,
): Promise<void> {
  const golden = await openCheckpoint(join(goldenRoot, "mha", "blip2_qformer.pth"));
  const arrays: Record<string, NdArray<"float32">> = {};
  for (const [name, { shape }] of golden.tensors) {
    if (name.endsWith("position_ids")) continue;
    const values = await golden.readFloat32(name);
    arrays[name] = ndarray("float32", shape, change(name, values) ?? values);
  }
  await golden.close();
  await writeSafetensors(path, arrays);
}
