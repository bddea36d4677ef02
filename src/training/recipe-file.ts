/** Recipes as YAML files: `--set` overrides, deprecated keys, and errors that name file and line. */
import { readFile } from "node:fs/promises";
import { type Document, isMap, isScalar, LineCounter, parseDocument } from "yaml";
import type { z } from "zod";

export interface RecipeFile {
  readonly document: Document;
  /** A message for each deprecated key that the recipe uses. */
  readonly deprecated: readonly string[];
  /** The validated document. @throws Error naming the file, the line and the key that is wrong */
  check<T>(schema: z.ZodType<T>): T;
}

/**
 * Reads a file.
 *
 * @param settings `key.key=value` each; they replace values of the file, and `null` removes one
 * @param deprecatedKeys old names of keys, which are still read
 * @throws Error naming the file and what is wrong with it
 */
export async function readRecipeFile(
  path: string,
  settings: readonly string[],
  deprecatedKeys: readonly RenamedKey[] = [],
): Promise<RecipeFile> {
  const text = await readFile(path, "utf8").catch((cause: Error) => {
    throw new Error(`Recipe ${path} cannot be read: ${cause.message}`, { cause });
  });
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines });
  const [broken] = document.errors;
  if (broken) throw new Error(`${path}: ${broken.message}`);
  const deprecated = new Set(renameKeys(document, deprecatedKeys));
  for (const setting of settings) {
    const [, key, value] = /^([\w.]+)=(.*)$/s.exec(setting) ?? [];
    if (!key || value === undefined)
      throw new Error(`--set ${setting}: expected key.key=value, for example run.init_lr=3e-5`);
    const given: unknown = parseDocument(value).toJS();
    const names = key.split(".");
    const current = currentKey(names, deprecatedKeys);
    if (current !== names) deprecated.add(deprecation(names, current));
    if (given === null) document.deleteIn(current);
    else document.setIn(current, document.createNode(given));
    // A setting may also be a whole section with old keys in it.
    for (const message of renameKeys(document, deprecatedKeys)) deprecated.add(message);
  }
  return {
    document,
    deprecated: [...deprecated],
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

  /** The line of a key, or of its nearest parent in the file. */
  function lineOf(keys: readonly PropertyKey[]): number | undefined {
    for (let length = keys.length; length > 0; length--) {
      const node = document.getIn(keys.slice(0, length), true) as { range?: [number, number, number] } | undefined;
      if (node?.range) return lines.linePos(node.range[0]).line;
    }
    return undefined;
  }
}

/** Path of a key; `*` stands for any name. */
type KeyPath = readonly string[];

/** A key that was renamed; a `*` of the new path is that of the old one. */
export type RenamedKey = readonly [from: KeyPath, to: KeyPath];

function deprecation(from: KeyPath, to: KeyPath): string {
  return `${from.join(".")} is deprecated; use ${to.join(".")}`;
}

/** Renames deprecated keys in place. @returns a message for each */
function renameKeys(document: Document, keys: readonly RenamedKey[]): string[] {
  return keys.flatMap(([from, to]) =>
    matches(document, from).map((names) => {
      const target = fillNames(to, names);
      const node = document.getIn(names, true);
      document.deleteIn(names);
      if (document.getIn(target) === undefined) document.setIn(target, node);
      return deprecation(names, target);
    }),
  );
}

/** The current name of a key, which may be in a section that was renamed. */
function currentKey(names: KeyPath, keys: readonly RenamedKey[]): KeyPath {
  const isMatch = (from: KeyPath) =>
    from.length <= names.length && from.every((name, i) => name === "*" || name === names[i]);
  const renamed = keys.find(([from]) => isMatch(from));
  if (!renamed) return names;
  const [from, to] = renamed;
  return [...fillNames(to, names), ...names.slice(from.length)];
}

function fillNames(pattern: KeyPath, names: KeyPath): string[] {
  return pattern.map((name, i) => (name === "*" ? (names[i] as string) : name));
}

/** Keys of recipes of the Python original (such as `train_configs/minigpt4_stage1_pretrain.yaml`) with their names here. */
const originalKeys: readonly RenamedKey[] = [
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

/** Keys of the original without an effect here: their behaviour is fixed, or they concern its program. */
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
  // The original does not clean the captions of `cc_sbu_align` whatever this says, so the format decides.
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

/** Values of ignored keys that are not supported. */
const unsupported: readonly { readonly path: KeyPath; readonly allowed: unknown; readonly why: string }[] = [
  { path: ["model", "freeze_vit"], allowed: true, why: "the image encoder is always frozen" },
  {
    path: ["run", "lr_sched"],
    allowed: "linear_warmup_cosine_lr",
    why: "the only schedule is linear_warmup_cosine_lr",
  },
  { path: ["run", "evaluate"], allowed: false, why: "a recipe trains; use minigpt4 evaluate" },
];

/**
 * Translates the original project's keys in place.
 *
 * @returns the keys that are ignored
 * @throws Error naming the key whose value is not supported
 */
export function translateOriginalKeys(document: Document): string[] {
  for (const { path, allowed, why } of unsupported) {
    const value = document.getIn(path);
    if (value !== undefined && value !== null && value !== allowed) {
      throw new Error(`${path.join(".")}: ${String(value)} is not supported: ${why}`);
    }
  }
  const isOriginal = document.getIn(["model", "arch"]) === "mini_gpt4";
  translateFreezing(document);
  for (const [from, to] of originalKeys) {
    for (const names of matches(document, from)) {
      const node = document.getIn(names, true);
      if (isMap(node)) continue;
      document.deleteIn(names);
      const target = fillNames(to, names);
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

/** The defaults of the original's `arch: mini_gpt4`: EVA ViT-g, and a Q-Former unless `has_qformer` is false. */
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

/** `freeze_qformer: false` trains the whole Q-Former as well as the projection. */
function translateFreezing(document: Document): void {
  const frozen = document.getIn(["model", "freeze_qformer"]);
  if (frozen === undefined) return;
  document.deleteIn(["model", "freeze_qformer"]);
  if (document.getIn(["model", "trained"]) !== undefined) return;
  document.setIn(["model", "trained"], document.createNode(frozen ? ["projection"] : ["projection", "qformer"]));
}

/** Paths of the document that match a pattern. */
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

/** Removes a map that has become empty, and its parents if they are empty then; the top sections stay. */
function dropEmpty(document: Document, path: readonly string[]): void {
  const node = path.length > 2 ? document.getIn(path, true) : undefined;
  if (!isMap(node) || node.items.length > 0) return;
  document.deleteIn(path);
  dropEmpty(document, path.slice(0, -1));
}
