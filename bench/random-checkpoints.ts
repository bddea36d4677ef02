/**
 * Random checkpoints in the layouts and at the sizes of MiniGPT-4's released files, for trying out what is made of them:
 *
 *   npx tsx bench/random-checkpoints.ts FOLDER [--llm 7b|13b] [--scale 1/4] [--layers 4] [--safetensors]
 *
 * Weights are normal with a deviation of 0.02, norms are ones, so that activations stay finite. At full size the 7B files
 * take 18 GB.
 */
import { copyFile, mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { writeSafetensors } from "../src/formats/safetensors.ts";
import { writeTorch } from "../src/formats/torch/write.ts";
import { type DType, type NdArray, sizeOf } from "../src/tensor/array.ts";
import { float32ToFloat16 } from "../src/tensor/float16.ts";
import { Random } from "../src/tensor/random.ts";

type Tensors = Record<string, NdArray>;
type Shapes = Record<string, readonly number[]>;

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    llm: { type: "string", default: "7b" },
    /** Widths and depths are multiplied by this; sizes of heads stay. */
    scale: { type: "string", default: "1" },
    /** Layers of the language model, where not all are wanted. */
    layers: { type: "string" },
    safetensors: { type: "boolean", default: false },
  },
});
const [folder] = positionals;
if (!folder) throw new Error("Say which folder the files go to");
const [numerator = 1, denominator = 1] = values.scale.split("/").map(Number);
const scaled = (size: number, step = 1) => Math.max(step, Math.round((size * numerator) / denominator / step) * step);

const vit = { width: scaled(1408, 88), mlp: scaled(6144, 32), blocks: scaled(40), patch: 14, cells: 257 };
const qformer = { width: scaled(768, 64), mlp: scaled(3072, 32), layers: scaled(12), queries: 32, vocabulary: 30523 };
const sizes = { "7b": { width: 4096, mlp: 11008, layers: 32 }, "13b": { width: 5120, mlp: 13824, layers: 40 } };
const full = values.llm === "13b" ? sizes["13b"] : sizes["7b"];
const llm = {
  width: scaled(full.width, 128),
  mlp: scaled(full.mlp, 32),
  layers: values.layers ? Number(values.layers) : scaled(full.layers),
  vocabulary: 32000,
};

/** Numbers that are drawn; larger tensors repeat them. The count is prime, so that rows differ. */
const drawn = 1_000_003;
const random = new Random(1);
const floats = Float32Array.from({ length: drawn }, () => 0.02 * random.normal());
const halves = float32ToFloat16(floats);

/** A tensor whose values are made when they are asked for, so that a file need not fit into memory. */
function lazy(name: string, shape: readonly number[], dtype: DType): NdArray {
  const size = sizeOf(shape);
  const isNorm = /norm\d?\.weight$|ln_vision\.weight$/i.test(name);
  const make = (): Float32Array | Uint16Array => {
    const source = dtype === "float16" ? halves : floats;
    const data = dtype === "float16" ? new Uint16Array(size) : new Float32Array(size);
    if (isNorm) return data.fill(dtype === "float16" ? 0x3c00 : 1);
    const start = [...name].reduce((hash, character) => (31 * hash + character.charCodeAt(0)) % drawn, 7);
    for (let at = 0, from = start; at < size; from = 0) {
      const piece = source.subarray(from, Math.min(drawn, from + size - at));
      data.set(piece as Float32Array & Uint16Array, at);
      at += piece.length;
    }
    return data;
  };
  const array: NdArray = {
    dtype,
    shape,
    get data() {
      return make();
    },
  };
  return array;
}

function tensorsOf(shapes: Shapes, dtype: DType): Tensors {
  return Object.fromEntries(Object.entries(shapes).map(([name, shape]) => [name, lazy(name, shape, dtype)]));
}

const linear = (name: string, out: number, size: number): Shapes => ({
  [`${name}.weight`]: [out, size],
  [`${name}.bias`]: [out],
});
const norm = (name: string, size: number): Shapes => ({ [`${name}.weight`]: [size], [`${name}.bias`]: [size] });

function vitShapes(): Shapes {
  const { width, mlp, patch, cells } = vit;
  const shapes: Shapes = {
    cls_token: [1, 1, width],
    pos_embed: [1, cells, width],
    "patch_embed.proj.weight": [width, 3, patch, patch],
    "patch_embed.proj.bias": [width],
  };
  for (let i = 0; i < vit.blocks; i++) {
    const block = `blocks.${i}`;
    Object.assign(shapes, norm(`${block}.norm1`, width), norm(`${block}.norm2`, width), {
      [`${block}.attn.q_bias`]: [width],
      [`${block}.attn.v_bias`]: [width],
      [`${block}.attn.qkv.weight`]: [3 * width, width],
    });
    Object.assign(shapes, linear(`${block}.attn.proj`, width, width));
    Object.assign(shapes, linear(`${block}.mlp.fc1`, mlp, width), linear(`${block}.mlp.fc2`, width, mlp));
  }
  // What the file holds beside what is used.
  return { ...shapes, ...norm("norm", width), ...linear("head", 1024, width) };
}

function qformerShapes(): Shapes {
  const { width, mlp, queries, vocabulary } = qformer;
  const bert = "Qformer.bert";
  const shapes: Shapes = {
    query_tokens: [1, queries, width],
    ...norm("ln_vision", vit.width),
    [`${bert}.embeddings.word_embeddings.weight`]: [vocabulary, width],
    [`${bert}.embeddings.position_embeddings.weight`]: [512, width],
    ...norm(`${bert}.embeddings.LayerNorm`, width),
  };
  const attention = (name: string, from: number): Shapes => ({
    ...linear(`${name}.self.query`, width, width),
    ...linear(`${name}.self.key`, width, from),
    ...linear(`${name}.self.value`, width, from),
    ...linear(`${name}.output.dense`, width, width),
    ...norm(`${name}.output.LayerNorm`, width),
  });
  for (let i = 0; i < qformer.layers; i++) {
    const layer = `${bert}.encoder.layer.${i}`;
    Object.assign(shapes, attention(`${layer}.attention`, width));
    if (i % 2 === 0) Object.assign(shapes, attention(`${layer}.crossattention`, vit.width));
    for (const side of ["", "_query"]) {
      Object.assign(shapes, linear(`${layer}.intermediate${side}.dense`, mlp, width));
      Object.assign(
        shapes,
        linear(`${layer}.output${side}.dense`, width, mlp),
        norm(`${layer}.output${side}.LayerNorm`, width),
      );
    }
  }
  // The linear layer into Flan-T5 XXL, which is not used.
  return { ...shapes, ...linear("t5_proj", scaled(4096, 32), width) };
}

/** The shapes by layer, as the shards of a language model hold them. */
function llmShapes(): Shapes[] {
  const { width, mlp, vocabulary } = llm;
  const layers = Array.from({ length: llm.layers }, (_, i): Shapes => {
    const layer = `model.layers.${i}`;
    return {
      [`${layer}.input_layernorm.weight`]: [width],
      ...Object.fromEntries(
        ["q", "k", "v", "o"].map((name) => [`${layer}.self_attn.${name}_proj.weight`, [width, width]]),
      ),
      [`${layer}.self_attn.rotary_emb.inv_freq`]: [64],
      [`${layer}.post_attention_layernorm.weight`]: [width],
      [`${layer}.mlp.gate_proj.weight`]: [mlp, width],
      [`${layer}.mlp.up_proj.weight`]: [mlp, width],
      [`${layer}.mlp.down_proj.weight`]: [width, mlp],
    };
  });
  const ends = { "model.norm.weight": [width], "lm_head.weight": [vocabulary, width] };
  return [{ "model.embed_tokens.weight": [vocabulary, width] }, ...layers, ends];
}

/** Layers of a shard: some 2 GB at full size. */
const layersOfShard = 5;

async function writeLlm(path: string): Promise<void> {
  await mkdir(path, { recursive: true });
  const pieces = llmShapes();
  const count = Math.ceil(pieces.length / layersOfShard);
  const homes: Record<string, string> = {};
  const [stem, ending] = values.safetensors ? ["model", "safetensors"] : ["pytorch_model", "bin"];
  for (let i = 0; i < count; i++) {
    const shapes: Shapes = Object.assign({}, ...pieces.slice(i * layersOfShard, (i + 1) * layersOfShard));
    const number = (n: number) => `${n}`.padStart(5, "0");
    const name = `${stem}-${number(i + 1)}-of-${number(count)}.${ending}`;
    const tensors = tensorsOf(shapes, "float16");
    if (values.safetensors) await writeSafetensors(join(path, name), tensors);
    else await writeTorch(join(path, name), tensors, { under: null });
    for (const tensor of Object.keys(shapes)) homes[tensor] = name;
    console.log(join(path, name));
  }
  const index = { metadata: {}, weight_map: homes };
  await writeFile(join(path, `${stem}.${ending}.index.json`), JSON.stringify(index, null, 2));
  const config = {
    architectures: ["LlamaForCausalLM"],
    model_type: "llama",
    vocab_size: llm.vocabulary,
    hidden_size: llm.width,
    intermediate_size: llm.mlp,
    num_hidden_layers: llm.layers,
    num_attention_heads: llm.width / 128,
    rms_norm_eps: 1e-6,
    max_position_embeddings: 2048,
    hidden_act: "silu",
    torch_dtype: "float16",
  };
  await writeFile(join(path, "config.json"), JSON.stringify(config, null, 2));
  // A small vocabulary of the tests; that of LLaMA may not be passed on.
  const tokenizer = join(import.meta.dirname, "../test/reference/golden/mha/llama-bin/tokenizer.model");
  await copyFile(tokenizer, join(path, "tokenizer.model"));
}

await mkdir(folder, { recursive: true });
const write = async (name: string, shapes: Shapes, dtype: DType, under: string | null) => {
  await writeTorch(join(folder, name), tensorsOf(shapes, dtype), { under });
  console.log(join(folder, name));
};
const projection = (from: number) => linear("llama_proj", llm.width, from);
await write("eva_vit_g.pth", vitShapes(), "float16", null);
await write("blip2_pretrained_flant5xxl.pth", qformerShapes(), "float32", "model");
await write("pretrained_minigpt4.pth", projection(qformer.width), "float32", "model");
await write("pretrained_minigpt4_llama2.pth", projection(4 * vit.width), "float32", "model");
await writeLlm(join(folder, "llm"));
