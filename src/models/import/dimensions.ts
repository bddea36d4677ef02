/** The dimensions of the image parts, read from the shapes of their tensors. */
import type { Checkpoint } from "../../checkpoints/checkpoint.ts";
import { formatShape } from "../../tensor/dims.ts";
import type { ModelFolderJson } from "../model-folder.ts";

/** What shapes do not tell. */
export interface Heads {
  /** Of the image encoder; by default the width divided by 88, as in EVA-CLIP g. */
  readonly vitHeads?: number | undefined;
  /** Of the Q-Former; by default the width divided by 64, as in BERT. */
  readonly qformerHeads?: number | undefined;
  /** Blocks of the image encoder that are run; by default all, of EVA-CLIP g all but the last. */
  readonly vitLayers?: number | undefined;
}

type EvaVitJson = Extract<ModelFolderJson["encoder"], { type: "eva_vit" }>;
type QFormerJson = NonNullable<ModelFolderJson["qformer"]>;

/** EVA-CLIP g: of its 40 blocks, BLIP-2 and MiniGPT-4 do not run the last one. */
const evaClipG = { width: 1408, blocks: 40 };

/** @throws Error naming the file if a tensor is missing or the number of heads cannot be known */
export function vitDimensions(checkpoint: Checkpoint, { vitHeads, vitLayers }: Heads): EvaVitJson {
  const [width = 0, , patch = 0] = shapeOf(checkpoint, "patch_embed.proj.weight", 4);
  const [, cells = 0] = shapeOf(checkpoint, "pos_embed", 3);
  const side = Math.sqrt(cells - 1);
  if (!Number.isInteger(side) || side < 1) {
    throw new Error(
      `${checkpoint.path}: pos_embed has ${cells} places, which are no square of patches and a class token`,
    );
  }
  const stored = countOf(checkpoint, /^blocks\.(\d+)\./);
  const usual = width === evaClipG.width && stored === evaClipG.blocks ? stored - 1 : stored;
  const layers = vitLayers ?? usual;
  if (layers > stored) throw new Error(`${checkpoint.path} has ${stored} blocks; --vit-layers ${layers} are not there`);
  return {
    type: "eva_vit",
    image_size: side * patch,
    patch_size: patch,
    hidden_size: width,
    num_hidden_layers: layers,
    num_attention_heads: vitHeads ?? usualHeads(checkpoint, "--vit-heads", width, 88),
    intermediate_size: shapeOf(checkpoint, "blocks.0.mlp.fc1.weight", 2)[0] ?? 0,
  };
}

/** @throws Error naming the file if a tensor is missing or the number of heads cannot be known */
export function qformerDimensions(checkpoint: Checkpoint, { qformerHeads }: Heads): QFormerJson {
  const [, queries = 0, width = 0] = shapeOf(checkpoint, "query_tokens", 3);
  const layer = (i: number | string, name: string) => `Qformer.bert.encoder.layer.${i}.${name}`;
  const layers = countOf(checkpoint, /^Qformer\.bert\.encoder\.layer\.(\d+)\./);
  const looks = (i: number) => checkpoint.tensors.has(layer(i, "crossattention.self.key.weight"));
  const second = Array.from({ length: layers }, (_, i) => i).find((i) => i > 0 && looks(i));
  return {
    num_query_tokens: queries,
    hidden_size: width,
    num_hidden_layers: layers,
    num_attention_heads: qformerHeads ?? usualHeads(checkpoint, "--qformer-heads", width, 64),
    intermediate_size: shapeOf(checkpoint, layer(0, "intermediate_query.dense.weight"), 2)[0] ?? 0,
    encoder_width: shapeOf(checkpoint, layer(0, "crossattention.self.key.weight"), 2)[1] ?? 0,
    cross_attention_frequency: second ?? Math.max(1, layers),
  };
}

/** [width of the language model, width of what is projected]. */
export function projectionDimensions(checkpoint: Checkpoint): readonly [to: number, from: number] {
  const [to = 0, from = 0] = shapeOf(checkpoint, "llama_proj.weight", 2);
  return [to, from];
}

function usualHeads({ path }: Checkpoint, option: string, width: number, headSize: number): number {
  if (width % headSize === 0) return width / headSize;
  throw new Error(
    `${path}: a width of ${width} is no multiple of ${headSize}; say with ${option} how many heads there are`,
  );
}

function shapeOf({ path, tensors }: Checkpoint, name: string, rank: number): readonly number[] {
  const shape = tensors.get(name)?.shape;
  if (!shape) throw new Error(`${path} has no tensor "${name}", which its dimensions are read from`);
  if (shape.length !== rank)
    throw new Error(`${path}: "${name}" is ${formatShape(shape)}, expected ${rank} dimensions`);
  return shape;
}

/** One more than the largest number at a place of the tensors' names. */
function countOf({ tensors }: Checkpoint, pattern: RegExp): number {
  const numbers = [...tensors.keys()].map((name) => Number(pattern.exec(name)?.[1] ?? -1));
  return 1 + numbers.reduce((largest, n) => Math.max(largest, n), -1);
}
