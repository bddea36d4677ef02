/** A model folder of MiniGPT-4 7B at a quarter of its size, with random weights: what it says is noise, what it costs is in proportion. */
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { ModelFolderJson } from "../src/models/model-folder.ts";
import { stage1Files } from "./stage1-files.ts";
import { quarter } from "./stage1-shapes.ts";

/** @returns the folder */
export async function quarterModel(): Promise<string> {
  const folder = await stage1Files("quarter", quarter);
  const weights = "image.safetensors";
  const config: ModelFolderJson = {
    model_type: "minigpt4",
    encoder: { type: "eva_vit", ...quarter.encoder },
    qformer: quarter.qformer,
    llm: "llm",
    weights: { encoder: weights, projection: weights },
    prompt_template: "vicuna-v0",
    describe: { prompt: "<ImageHere>" },
  };
  await writeFile(join(folder, "config.json"), JSON.stringify(config));
  return folder;
}
