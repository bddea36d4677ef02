/** The files of the benchmark of a stage-1 step, which both sides read: random weights, pixels, and a recipe for them. */
import { existsSync } from "node:fs";
import { copyFile, mkdir, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { cacheFolder } from "../src/files/cache-folder.ts";
import { writeSafetensors } from "../src/formats/safetensors.ts";
import { qformerConfig, qformerSchema } from "../src/models/model-folder.ts";
import { initialProjection, initialQFormer } from "../src/models/qformer-init.ts";
import { type NdArray, ndarray, sizeOf } from "../src/tensor/array.ts";
import { Random } from "../src/tensor/random.ts";
import { images, type Stage1Shapes } from "./stage1-shapes.ts";

type Arrays = Record<string, NdArray<"float32">>;

/** A small SentencePiece vocabulary of the tests; a LLaMA has to have some. */
const tokenizer = join(import.meta.dirname, "../test/reference/golden/gqa/llama-safetensors/tokenizer.model");

/** Writes what is not there yet. @returns the folder */
export async function stage1Files(
  name: string,
  shapes: Stage1Shapes,
  { llm = true }: { readonly llm?: boolean } = {},
): Promise<string> {
  const folder = join(cacheFolder(), "bench", `stage1-${name}`);
  if (existsSync(folder)) return folder;
  const partial = `${folder}.partial`;
  await rm(partial, { recursive: true, force: true });
  await mkdir(partial, { recursive: true });
  const random = new Random(1);
  await writeSafetensors(join(partial, "image.safetensors"), imageWeights(shapes, random));
  if (llm) await writeLlm(join(partial, "llm"), shapes, random);
  const size = shapes.encoder.image_size;
  const pixels = normal([images, 3, size, size], 1, random);
  await writeSafetensors(join(partial, "pixels.safetensors"), { pixels });
  await rename(partial, folder);
  return folder;
}

async function writeLlm(folder: string, { llm }: Stage1Shapes, random: Random): Promise<void> {
  await mkdir(folder);
  await writeSafetensors(join(folder, "model.safetensors"), llamaWeights(llm, random));
  const config = { model_type: "llama", rms_norm_eps: 1e-6, rope_theta: 10000, max_position_embeddings: 2048 };
  await writeFile(join(folder, "config.json"), JSON.stringify({ ...config, ...llm }));
  await copyFile(tokenizer, join(folder, "tokenizer.model"));
}

/** The first stage of MiniGPT-4 with these files: the projection is trained, after the image comes the caption. */
export function stage1Recipe(folder: string, shapes: Stage1Shapes, quantization: "float32" | "int8" = "float32") {
  const weights = join(folder, "image.safetensors");
  return {
    model: {
      arch: "minigpt4",
      encoder: { type: "eva_vit", ...shapes.encoder },
      encoder_ckpt: weights,
      qformer: shapes.qformer,
      qformer_ckpt: weights,
      llm: join(folder, "llm"),
      encoder_quantization: quantization,
      llm_quantization: quantization,
      trained: ["projection"],
    },
    // The batch is made; no data set is read.
    datasets: { none: { path: folder } },
    run: {
      init_lr: 1e-4,
      min_lr: 1e-4,
      max_epoch: 1,
      iters_per_epoch: 1,
      batch_size: images,
      feature_cache: false,
      output_dir: join(folder, "run"),
    },
  };
}

function imageWeights({ encoder, qformer, llm }: Stage1Shapes, random: Random): Arrays {
  const { hidden_size: width, intermediate_size: mlp, patch_size: patch } = encoder;
  const cells = 1 + (encoder.image_size / patch) ** 2;
  const arrays: Arrays = {};
  const add = (name: string, shape: readonly number[]) => {
    arrays[name] = normal(shape, 0.02, random);
  };
  const linear = (name: string, out: number, size: number) => {
    add(`${name}.weight`, [out, size]);
    add(`${name}.bias`, [out]);
  };
  const norm = (name: string) => {
    arrays[`${name}.weight`] = ones(width);
    add(`${name}.bias`, [width]);
  };
  add("cls_token", [1, 1, width]);
  add("pos_embed", [1, cells, width]);
  add("patch_embed.proj.weight", [width, 3, patch, patch]);
  add("patch_embed.proj.bias", [width]);
  for (let i = 0; i < encoder.num_hidden_layers; i++) {
    const block = `blocks.${i}`;
    norm(`${block}.norm1`);
    add(`${block}.attn.qkv.weight`, [3 * width, width]);
    add(`${block}.attn.q_bias`, [width]);
    add(`${block}.attn.v_bias`, [width]);
    linear(`${block}.attn.proj`, width, width);
    norm(`${block}.norm2`);
    linear(`${block}.mlp.fc1`, mlp, width);
    linear(`${block}.mlp.fc2`, width, mlp);
  }
  norm("ln_vision");
  const config = qformerConfig(qformerSchema.parse(qformer));
  return {
    ...arrays,
    ...initialQFormer(config, random),
    ...initialProjection(config.hiddenSize, llm.hidden_size, random),
  };
}

function llamaWeights(llm: Stage1Shapes["llm"], random: Random): Arrays {
  const { hidden_size: width, intermediate_size: mlp, vocab_size: vocabulary } = llm;
  const arrays: Arrays = {};
  const add = (name: string, out: number, size: number) => {
    arrays[`${name}.weight`] = normal([out, size], 0.02, random);
  };
  const norm = (name: string) => {
    arrays[`${name}.weight`] = ones(width);
  };
  add("model.embed_tokens", vocabulary, width);
  for (let i = 0; i < llm.num_hidden_layers; i++) {
    const layer = `model.layers.${i}`;
    norm(`${layer}.input_layernorm`);
    for (const name of ["q", "k", "v", "o"]) add(`${layer}.self_attn.${name}_proj`, width, width);
    norm(`${layer}.post_attention_layernorm`);
    add(`${layer}.mlp.gate_proj`, mlp, width);
    add(`${layer}.mlp.up_proj`, mlp, width);
    add(`${layer}.mlp.down_proj`, width, mlp);
  }
  norm("model.norm");
  add("lm_head", vocabulary, width);
  return arrays;
}

/** Drawing hundreds of millions of numbers takes long: a large array repeats those of a prime length. */
const drawn = 1_000_003;

function normal(shape: readonly number[], deviation: number, random: Random): NdArray<"float32"> {
  const values = new Float32Array(sizeOf(shape));
  const own = Math.min(drawn, values.length);
  for (let i = 0; i < own; i++) values[i] = random.normal() * deviation;
  for (let start = own; start < values.length; start += own) {
    values.set(values.subarray(0, Math.min(own, values.length - start)), start);
  }
  return ndarray("float32", shape, values);
}

function ones(size: number): NdArray<"float32"> {
  return ndarray("float32", [size], new Float32Array(size).fill(1));
}
