/** `model.json`: what a page knows of a model whose files lie beside it. */
import { z } from "zod";
import { packings } from "../formats/packed.ts";
import { withCurrentQuantization } from "../tensor/quant/quantization.ts";
import { type PromptTemplate, promptTemplates } from "../tokenizers/prompts.ts";
import type { MiniGPT4Config } from "./minigpt4.ts";

export const webModelFile = "model.json";
const version = 1;

const size = z.int().nonnegative();
const index = z.array(
  z.object({ name: z.string(), shape: z.array(size).readonly(), packing: z.enum(packings), offset: size }),
);

const file = z.object({
  /** Its path beside `model.json`. */
  name: z.string().regex(/^[\w.-]+$/),
  bytes: size,
  /** In hexadecimal. */
  sha256: z.string().regex(/^[0-9a-f]{64}$/),
});

const schema = z.object({
  version: z.literal(version),
  name: z.string(),
  /** Dimensions, as the networks take them. */
  config: z.custom<MiniGPT4Config>((value) => typeof value === "object" && value !== null),
  /** How the language model's matrices are multiplied where that is fast; float32 elsewhere. */
  quantization: z.enum(["int4", "float32"]),
  template: z.enum(Object.keys(promptTemplates) as [PromptTemplate["name"], ...PromptTemplate["name"][]]),
  describe: z.object({ prompt: z.string(), beginsWith: z.string(), stop: z.array(z.string()).readonly() }),
  /** Positions of prompt and answer together. */
  contextLength: z.int().positive(),
  /** Tensors of each part; offsets count over all files of `weights`, one after the other. */
  tensors: z.object({ encoder: index, qformer: index, projection: index, llm: index }),
  tokenizer: file,
  weights: z.array(file),
});

export type WebModel = z.infer<typeof schema>;
export type WebModelFile = z.infer<typeof file>;

/** @throws Error saying what is wrong with it */
export function parseWebModel(json: unknown): WebModel {
  const { data, error } = schema.safeParse(withCurrentQuantization(json));
  if (!data) {
    throw new Error(
      `${webModelFile} is none that this page understands; export the model again:\n${z.prettifyError(error)}`,
    );
  }
  return data;
}

/** The `model.json` of a model, without what is not known yet. */
export function webModel(model: Omit<WebModel, "version">): WebModel {
  return { version, ...model };
}
