/** The forms of golden folders, recognised by their contents. */
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";

/** Files of each form, next to `goldens.json`. */
const forms = {
  minigpt4: ["eva_vit.pth", "blip2_qformer.pth", "llama-safetensors"],
  llava: ["clip", "original"],
  smolvlm: ["model", "config-v4.json"],
  nanovlm: ["model", "tokenizer"],
  "llama-adapter-v2": ["clip-openai.pth", "BIAS.pth", "llama-hf"],
} as const;

export type GoldenForm = keyof typeof forms | "unknown";

/** Forms that the reference tests compare with. */
export const testedForms: readonly GoldenForm[] = ["minigpt4"];

export interface GoldenFolder {
  readonly path: string;
  readonly form: GoldenForm;
}

/** The golden folders at and directly below a path. */
export function findGoldenFolders(root: string): GoldenFolder[] {
  const entries = existsSync(root) ? readdirSync(root, { withFileTypes: true }) : [];
  const folders = [root, ...entries.filter((entry) => !entry.isFile()).map(({ name }) => join(root, name))];
  return folders
    .filter((path) => existsSync(join(path, "goldens.json")))
    .map((path) => ({ path, form: recogniseForm(path) }));
}

/** Golden files of single models, which lie directly in the root. */
export function findGoldenFiles(root: string): string[] {
  return ["smollm2.json", "efficientnet_lite0.json"].filter((name) => existsSync(join(root, name)));
}

function recogniseForm(path: string): GoldenForm {
  for (const [form, files] of Object.entries(forms)) {
    if (files.every((file) => existsSync(join(path, file)))) return form as GoldenForm;
  }
  return "unknown";
}
