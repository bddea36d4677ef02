/** Recipes as YAML files: values that replace those of the file, and errors that name the line. */
import { readFile } from "node:fs/promises";
import { type Document, isMap, isScalar, LineCounter, parseDocument } from "yaml";
import type { z } from "zod";

export interface RecipeFile {
  readonly document: Document;
  /** What the document says. @throws Error naming the file, the line and the key that is wrong */
  check<T>(schema: z.ZodType<T>): T;
}

/**
 * Reads a file.
 *
 * @param settings `key.key=value` each; they replace what the file says, and `null` removes it
 * @throws Error naming the file and what is wrong with it
 */
export async function readRecipeFile(path: string, settings: readonly string[]): Promise<RecipeFile> {
  const text = await readFile(path, "utf8").catch((cause: Error) => {
    throw new Error(`The recipe ${path} cannot be read: ${cause.message}`, { cause });
  });
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines });
  const [broken] = document.errors;
  if (broken) throw new Error(`${path}: ${broken.message}`);
  for (const setting of settings) {
    const [, key, value] = /^([\w.]+)=(.*)$/s.exec(setting) ?? [];
    if (!key || value === undefined)
      throw new Error(`--set ${setting}: expected key.key=value, for example run.init_lr=3e-5`);
    const given: unknown = parseDocument(value).toJS();
    if (given === null) document.deleteIn(key.split("."));
    else document.setIn(key.split("."), document.createNode(given));
  }
  return {
    document,
    check(schema) {
      const { data, error } = schema.safeParse(document.toJS());
      if (!error) return data;
      const problems = error.issues.map(({ path: keys, message }) => {
        const line = lineOf(keys);
        return `${path}${line === undefined ? "" : `:${line}`}: ${keys.join(".") || "the recipe"}: ${message}`;
      });
      throw new Error(problems.join("\n"));
    },
  };

  /** Of the key, or of the nearest one above it that the file has. */
  function lineOf(keys: readonly PropertyKey[]): number | undefined {
    for (let length = keys.length; length > 0; length--) {
      const node = document.getIn(keys.slice(0, length), true) as { range?: [number, number, number] } | undefined;
      if (node?.range) return lines.linePos(node.range[0]).line;
    }
    return undefined;
  }
}

// * Recipes of the original project (`train_configs/minigpt4_stage1_pretrain.yaml` and its like): other names for our keys,
// and keys that say something about a machine or a program that is not this one.

/** Path of a key; `*` stands for any name. */
type KeyPath = readonly string[];

const renamed: readonly (readonly [from: KeyPath, to: KeyPath])[] = [
  [
    ["model", "llama_model"],
    ["model", "llm"],
  ],
  [
    ["model", "q_former_model"],
    ["model", "qformer_ckpt"],
  ],
  [
    ["model", "num_query_token"],
    ["model", "qformer", "num_query_tokens"],
  ],
  [
    ["model", "image_size"],
    ["model", "encoder", "image_size"],
  ],
  [
    ["run", "batch_size_train"],
    ["run", "batch_size"],
  ],
  [
    ["run", "resume_ckpt_path"],
    ["model", "ckpt"],
  ],
  [
    ["datasets", "*", "build_info", "storage"],
    ["datasets", "*", "path"],
  ],
];

/** What these say is always so here, or concerns a program that this is not. */
const ignored: readonly KeyPath[] = [
  ["model", "model_type"],
  ["model", "freeze_vit"],
  ["model", "drop_path_rate"],
  ["model", "use_grad_checkpoint"],
  ["model", "vit_precision"],
  ["model", "vit_model"],
  ["model", "prompt"],
  ["model", "low_resource"],
  ["datasets", "*", "data_type"],
  ["datasets", "*", "vis_processor"],
  // It names the captions' cleaning, which the original itself does not do in `cc_sbu_align`; so the layout decides.
  ["datasets", "*", "text_processor", "train"],
  ["datasets", "*", "text_processor", "eval"],
  ["preprocess"],
  ["run", "task"],
  ["run", "lr_sched"],
  ["run", "batch_size_eval"],
  ["run", "amp"],
  ["run", "evaluate"],
  ["run", "train_splits"],
  ["run", "device"],
  ["run", "world_size"],
  ["run", "dist_url"],
  ["run", "distributed"],
];

/** Values of those keys that cannot be obeyed, and why. */
const refused: readonly { readonly path: KeyPath; readonly allowed: unknown; readonly why: string }[] = [
  { path: ["model", "freeze_vit"], allowed: true, why: "the image encoder is always frozen" },
  {
    path: ["run", "lr_sched"],
    allowed: "linear_warmup_cosine_lr",
    why: "the only schedule is linear_warmup_cosine_lr",
  },
  { path: ["run", "evaluate"], allowed: false, why: "a recipe trains; use minigpt4 evaluate" },
];

/**
 * Turns the original project's keys into ours, in place.
 *
 * @returns the keys that were left aside
 * @throws Error naming the key if one asks for what cannot be done
 */
export function translateOriginalKeys(document: Document): string[] {
  for (const { path, allowed, why } of refused) {
    const value = document.getIn(path);
    if (value !== undefined && value !== null && value !== allowed) {
      throw new Error(`${path.join(".")}: ${String(value)} is not possible: ${why}`);
    }
  }
  const isOriginal = document.getIn(["model", "arch"]) === "mini_gpt4";
  translateFreezing(document);
  for (const [from, to] of renamed) {
    for (const names of matches(document, from)) {
      const node = document.getIn(names, true);
      if (isMap(node)) continue;
      document.deleteIn(names);
      const target = to.map((name, i) => (name === "*" ? (names[i] as string) : name));
      dropEmpty(document, names.slice(0, -1));
      const isEmpty = isScalar(node) && (node.value === null || node.value === "");
      if (!isEmpty && document.getIn(target) === undefined) document.setIn(target, node);
    }
  }
  if (isOriginal) fillModel(document);
  const dropped: string[] = [];
  for (const path of ignored) {
    for (const names of matches(document, path)) {
      document.deleteIn(names);
      dropEmpty(document, names.slice(0, -1));
      dropped.push(names.join("."));
    }
  }
  return dropped;
}

/** What the original's `arch: mini_gpt4` implies: EVA ViT-g, and a Q-Former unless `has_qformer` is false. */
function fillModel(document: Document): void {
  document.setIn(["model", "arch"], "minigpt4");
  if (document.getIn(["model", "encoder", "type"]) === undefined)
    document.setIn(["model", "encoder", "type"], "eva_vit");
  const hasQFormer = document.getIn(["model", "has_qformer"]) !== false;
  document.deleteIn(["model", "has_qformer"]);
  if (hasQFormer && document.getIn(["model", "qformer"]) === undefined) {
    document.setIn(["model", "qformer"], document.createNode({}));
  }
}

/** `freeze_qformer: false` trains the whole Q-Former beside the projection. */
function translateFreezing(document: Document): void {
  const frozen = document.getIn(["model", "freeze_qformer"]);
  if (frozen === undefined) return;
  document.deleteIn(["model", "freeze_qformer"]);
  if (document.getIn(["model", "trained"]) !== undefined) return;
  document.setIn(["model", "trained"], document.createNode(frozen ? ["projection"] : ["projection", "qformer"]));
}

/** Existing paths that a pattern means. */
function matches(document: Document, pattern: KeyPath): string[][] {
  let found: string[][] = [[]];
  for (const name of pattern) {
    found = found.flatMap((path) => {
      const node = path.length === 0 ? document.contents : document.getIn(path, true);
      if (!isMap(node)) return [];
      if (name !== "*") return node.has(name) ? [[...path, name]] : [];
      return node.items.flatMap(({ key }) => (isScalar(key) ? [[...path, String(key.value)]] : []));
    });
  }
  return found;
}

/** Removes a map that has become empty, and what holds nothing but it; the top sections stay. */
function dropEmpty(document: Document, path: readonly string[]): void {
  const node = path.length > 2 ? document.getIn(path, true) : undefined;
  if (!isMap(node) || node.items.length > 0) return;
  document.deleteIn(path);
  dropEmpty(document, path.slice(0, -1));
}
