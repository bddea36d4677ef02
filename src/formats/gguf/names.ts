/** LLaMA checkpoints in GGUF files with Hugging Face's names and row order. */
import { denseMatrix } from "../../tensor/weight-source.ts";
import type { Checkpoint } from "../checkpoint.ts";
import { blockMatrix, isBlockType } from "./blocks.ts";

const names: readonly (readonly [RegExp, string])[] = [
  [/^token_embd\.weight$/, "model.embed_tokens.weight"],
  [/^output_norm\.weight$/, "model.norm.weight"],
  [/^output\.weight$/, "lm_head.weight"],
  [/^blk\.(\d+)\.attn_norm\.weight$/, "model.layers.$1.input_layernorm.weight"],
  [/^blk\.(\d+)\.attn_([qkv])\.weight$/, "model.layers.$1.self_attn.$2_proj.weight"],
  [/^blk\.(\d+)\.attn_output\.weight$/, "model.layers.$1.self_attn.o_proj.weight"],
  [/^blk\.(\d+)\.ffn_norm\.weight$/, "model.layers.$1.post_attention_layernorm.weight"],
  [/^blk\.(\d+)\.ffn_(gate|up|down)\.weight$/, "model.layers.$1.mlp.$2_proj.weight"],
];

/** Hugging Face's name of a GGUF tensor; unknown names are kept. */
function huggingFaceName(name: string): string {
  for (const [pattern, replacement] of names) if (pattern.test(name)) return name.replace(pattern, replacement);
  return name;
}

/**
 * A view of a GGUF LLaMA with Hugging Face's names.
 *
 * The rotary embedding rotates neighbouring elements in llama.cpp, and elements i and i + headDim / 2 in Hugging Face's
 * models; the rows of query and key matrices are permuted to the latter order.
 *
 * @throws Error if the file has another architecture
 */
export function withHuggingFaceNames(checkpoint: Checkpoint): Checkpoint {
  const { metadata } = checkpoint;
  if (metadata["general.architecture"] !== "llama") {
    throw new Error(
      `${checkpoint.path} contains a "${metadata["general.architecture"]}" model; only the LLaMA family ("llama") is supported`,
    );
  }
  const heads = Number(metadata["llama.attention.head_count"]);
  const kvHeads = Number(metadata["llama.attention.head_count_kv"] ?? heads);
  const original = new Map([...checkpoint.tensors.keys()].map((name) => [huggingFaceName(name), name]));
  const find = (name: string) => original.get(name) ?? name;
  const tensors = new Map(
    [...original].flatMap(([name, stored]) => {
      const info = checkpoint.tensors.get(stored);
      // Some rows are permuted, so the bytes in the file cannot be used directly.
      return info ? [[name, { ...info, name, range: undefined }] as const] : [];
    }),
  );
  /** Permutes the rows of a query or key matrix to Hugging Face's order. */
  const permute = <T extends Float32Array | Uint8Array>(name: string, values: T): T => {
    const rows = tensors.get(name)?.shape[0] ?? 0;
    if (name.endsWith(".self_attn.q_proj.weight")) return halfSplitRows(values, heads, rows);
    if (name.endsWith(".self_attn.k_proj.weight")) return halfSplitRows(values, kvHeads, rows);
    return values;
  };
  const readBytes = async (name: string) => permute(name, await checkpoint.readBytes(find(name)));
  return {
    path: checkpoint.path,
    format: checkpoint.format,
    metadata,
    tensors,
    readFloat32: async (name) => permute(name, await checkpoint.readFloat32(find(name))),
    readBytes,
    matrix(name) {
      const { storedType = "", shape = [] } = tensors.get(name) ?? {};
      if (!isBlockType(storedType)) return denseMatrix(this, name);
      return blockMatrix({ name, shape, type: storedType, read: () => readBytes(name) });
    },
    close: () => checkpoint.close(),
    [Symbol.asyncDispose]: () => checkpoint.close(),
  };
}

/** Rows of each head from pairs (0, 0'), (1, 1'), ... to 0, 1, ..., 0', 1', ... */
function halfSplitRows<T extends Float32Array | Uint8Array>(values: T, heads: number, rows: number): T {
  const width = values.length / rows;
  const half = rows / heads / 2;
  const out = values.slice() as T;
  for (let row = 0; row < rows; row++) {
    const head = Math.floor(row / (2 * half));
    const within = row % (2 * half);
    const to = head * 2 * half + (within % 2) * half + Math.floor(within / 2);
    out.set(values.subarray(row * width, (row + 1) * width), to * width);
  }
  return out;
}
