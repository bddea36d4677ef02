/** A model folder with the small random weights of the golden set: it babbles, but in no time. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import { afterAll } from "vitest";
import type { ModelFolderJson } from "../../src/models/model-folder.ts";
import { goldenEncoder, goldenQFormer } from "./golden-dimensions.ts";
import { goldenRoot } from "./golden-set.ts";

/** A folder that is removed after the tests of the file that asks for it. */
export function temporaryFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), "minigpt4-cli-"));
  afterAll(() => rmSync(folder, { recursive: true, force: true, maxRetries: 3 }));
  return folder;
}

/** Writes `config.json`, changed as a test wants, into a new folder below `parent`; the folder. */
export function tinyModel(
  parent: string,
  name = "tiny",
  change: (own: ModelFolderJson) => Partial<ModelFolderJson> = () => ({}),
): string {
  const folder = join(parent, name);
  mkdirSync(folder);
  const golden = (file: string) => relative(folder, join(goldenRoot, "mha", file));
  const config: ModelFolderJson = {
    model_type: "minigpt4",
    encoder: goldenEncoder,
    qformer: goldenQFormer,
    llm: join(goldenRoot, "mha", "llama-safetensors"),
    weights: {
      encoder: golden("eva_vit.pth"),
      qformer: golden("blip2_qformer.pth"),
      projection: golden("minigpt4.pth"),
    },
    prompt_template: "vicuna-v0",
    describe: {
      prompt: "###Human: <Img><ImageHere></Img> Describe this image in detail.###Assistant: ",
      stop: ["###"],
    },
  };
  writeFileSync(join(folder, "config.json"), JSON.stringify({ ...config, ...change(config) }));
  return folder;
}
