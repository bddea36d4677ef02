/** The released MiniGPT-4 models: URLs of their parts, and the folders of `pull`. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { importQuantizations } from "./import-plan.ts";
import type { PartKind } from "./import-sources.ts";

/** Source of a part: a file in Google Cloud Storage, a file on the Hugging Face Hub, or a repository there. */
export type PartSource =
  | { readonly kind: "storage"; readonly path: string }
  | { readonly kind: "hub"; readonly repo: string; readonly path: string }
  | { readonly kind: "hub-folder"; readonly repo: string };

export interface ReleasedPart {
  readonly source: PartSource;
  readonly license: string;
}

export interface ReleasedModel {
  readonly name: string;
  readonly parts: Readonly<Record<PartKind, ReleasedPart>>;
}

const blip2 = "sfr-vision-language-research/LAVIS/models/BLIP2";
const vit: ReleasedPart = {
  source: { kind: "storage", path: `${blip2}/eva_vit_g.pth` },
  license: "EVA, MIT",
};
const qformer: ReleasedPart = {
  source: { kind: "storage", path: `${blip2}/blip2_pretrained_flant5xxl.pth` },
  license: "BLIP-2, BSD-3-Clause",
};
const minigpt4 = "MiniGPT-4, BSD-3-Clause";
const llama = "Vicuna v0, made of LLaMA: LLaMA's licence, which allows no commercial use";

export const releasedModels: ReadonlyMap<string, ReleasedModel> = new Map([
  [
    "minigpt4-7b",
    {
      name: "minigpt4-7b",
      parts: {
        vit,
        qformer,
        // The file name is misspelt.
        projection: {
          source: { kind: "hub", repo: "spaces/Vision-CAIR/minigpt4", path: "prerained_minigpt4_7b.pth" },
          license: minigpt4,
        },
        llm: { source: { kind: "hub-folder", repo: "Vision-CAIR/vicuna-7b" }, license: llama },
      },
    },
  ],
  [
    "minigpt4-13b",
    {
      name: "minigpt4-13b",
      parts: {
        vit,
        qformer,
        projection: {
          source: { kind: "hub", repo: "Vision-CAIR/MiniGPT-4", path: "pretrained_minigpt4.pth" },
          license: minigpt4,
        },
        llm: { source: { kind: "hub-folder", repo: "Vision-CAIR/vicuna" }, license: llama },
      },
    },
  ],
]);

/** Quantizations of the language model in a pulled folder, the default first; a GGUF file keeps its own. */
const kinds = [...importQuantizations, "gguf"] as const;
export type ReleasedKind = (typeof kinds)[number];

/** The default folder of `pull` for a released model. */
export function releasedFolder(cache: string, name: string, kind: string): string {
  return join(cache, "models", `${name}-${kind}`);
}

/** The name of a quantization in folders of earlier versions. */
function oldKind(kind: ReleasedKind): string {
  return kind.replace(/^float(?=16$|32$)/, "fp");
}

/** The download folder for the files of a released model. */
export function releasedFiles(cache: string, name: string): string {
  return join(cache, "released", name);
}

/**
 * The folder of a pulled model by its name (`minigpt4-7b`), or its name and quantization (`minigpt4-7b-int8`); undefined for
 * other names.
 * @throws Error with the command that pulls it, if it is not in the cache
 */
export function pulledFolder(nameOrKind: string, cache: string): string | undefined {
  for (const name of releasedModels.keys()) {
    const matching = kinds.filter(
      (kind) => nameOrKind === name || nameOrKind === `${name}-${kind}` || nameOrKind === `${name}-${oldKind(kind)}`,
    );
    const [first] = matching;
    if (!first) continue;
    const folders = matching.flatMap((kind) => [kind, oldKind(kind)].map((one) => releasedFolder(cache, name, one)));
    const found = folders.find((folder) => existsSync(join(folder, "config.json")));
    if (found) return found;
    const option = matching.length > 1 ? "" : first === "gguf" ? " --llm FILE.gguf" : ` --quantization ${first}`;
    throw new Error(`${nameOrKind} is not in the cache (${cache}) yet. Fetch it with: minigpt4 pull ${name}${option}`);
  }
  return undefined;
}
