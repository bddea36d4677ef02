/** What a weight file holds, known by the names of its tensors. */
import type { Checkpoint } from "../../checkpoints/checkpoint.ts";

/** The parts that MiniGPT-4 is made of. */
export const partKinds = ["vit", "qformer", "projection", "llm"] as const;
export type PartKind = (typeof partKinds)[number];

const marks: readonly { readonly kind: PartKind; readonly tensors: readonly string[]; readonly what: string }[] = [
  {
    kind: "vit",
    tensors: ["patch_embed.proj.weight", "blocks.0.attn.qkv.weight"],
    what: "the image encoder (EVA ViT)",
  },
  { kind: "qformer", tensors: ["query_tokens"], what: "the Q-Former" },
  { kind: "projection", tensors: ["llama_proj.weight"], what: "MiniGPT-4's projection" },
  { kind: "llm", tensors: ["model.embed_tokens.weight"], what: "a language model" },
];

/** Checks that a file holds a part. @throws Error saying what it holds instead, and which option that is for */
export function expectPart({ path, tensors }: Checkpoint, kind: PartKind): void {
  const found = marks.filter((mark) => mark.tensors.every((name) => tensors.has(name)));
  if (found.some((mark) => mark.kind === kind)) return;
  const wanted = marks.find((mark) => mark.kind === kind);
  const needs = `--${kind} needs ${wanted?.what} (${wanted?.tensors.join(", ")})`;
  const [other] = found;
  if (other) throw new Error(`${path} holds ${other.what}, so it belongs to --${other.kind}; ${needs}`);
  const some = [...tensors.keys()].slice(0, 3).join(", ");
  throw new Error(`${path} holds nothing that is known here (${some || "it is empty"}); ${needs}`);
}
