/** Opens what finds pictures, whatever kind of model it is. */
import { modelPath } from "../chat/minigpt4.ts";
import type { PullOptions } from "../checkpoints/pull.ts";
import { openBlip2Folder } from "../models/blip2-folder.ts";
import { modelType } from "../models/folder-json.ts";
import { openModelFolder } from "../models/model-folder.ts";
import { Blip2Finder, type Blip2FinderOptions } from "./blip2-finder.ts";
import type { Finder } from "./finder.ts";
import { MiniGPT4Finder } from "./minigpt4-finder.ts";

export interface FinderOptions extends Blip2FinderOptions {
  /** How missing files are fetched. */
  readonly pull?: PullOptions;
}

/**
 * @param nameOrFolder a MiniGPT-4 with a contrastive head (`"nano"` has one), or the folder of a Q-Former that was pre-trained
 * @throws Error naming what is missing or does not fit
 */
export async function openFinder(nameOrFolder: string, { pull, ...options }: FinderOptions = {}): Promise<Finder> {
  const path = modelPath(nameOrFolder);
  if ((await modelType(path)) === "blip2_qformer") return new Blip2Finder(await openBlip2Folder(path), options);
  const { features: _, onMessage: __, ...session } = options;
  const folder = await openModelFolder(path, pull);
  try {
    return new MiniGPT4Finder(folder, session);
  } catch (error) {
    await folder.close();
    throw error;
  }
}
