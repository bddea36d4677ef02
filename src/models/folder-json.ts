/** `config.json` of a folder with a model: which kind of model it says that it is. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { readJson } from "./open-llama.ts";

/** The kinds of folders that a run leaves: what they are, and who takes them, for messages. */
const kinds = {
  minigpt4: { is: "a MiniGPT-4", takenBy: "`minigpt4 describe`, `chat`, `serve` and the other commands" },
  blip2_qformer: {
    is: "a Q-Former as BLIP-2 pre-trains it, without a language model",
    takenBy:
      "`minigpt4 search` and `minigpt4 evaluate retrieval`, and recipes take its weights (model.encoder_ckpt, model.qformer_ckpt)",
  },
} as const;

export type ModelType = keyof typeof kinds;

/** Where a model folder is described. */
export const folderJson = (path: string) => join(path, "config.json");

/** The kind that a folder says it is; undefined where it says another one, or none. @throws Error if it has no `config.json` */
export async function modelType(path: string): Promise<ModelType | undefined> {
  return typeOf(await read(path));
}

/**
 * The content of a folder's `config.json`, which has still to be checked.
 * @throws Error if there is none, or if the folder is of the other kind
 */
export async function readFolderJson(path: string, wanted: ModelType): Promise<unknown> {
  const json = await read(path);
  const found = typeOf(json);
  if (!found || found === wanted) return json;
  throw new Error(`${path} is ${kinds[found].is}, not ${kinds[wanted].is}; it is for ${kinds[found].takenBy}`);
}

async function read(path: string): Promise<unknown> {
  if (!existsSync(folderJson(path))) throw new Error(`${path} is no model folder: it has no config.json`);
  return readJson(folderJson(path));
}

const typed = z.object({ model_type: z.enum(Object.keys(kinds) as [ModelType, ...ModelType[]]) });

function typeOf(json: unknown): ModelType | undefined {
  return typed.safeParse(json).data?.model_type;
}
