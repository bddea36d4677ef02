/** `model.json`, the description of a model exported for the web, next to its files. */
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
  /** Name of the file, next to `model.json`. */
  name: z.string().regex(/^[\w.-]+$/),
  bytes: size,
  /** Digest in hexadecimal. */
  sha256: z.string().regex(/^[0-9a-f]{64}$/),
});

const schema = z.object({
  version: z.literal(version),
  name: z.string(),
  /** Configuration of the networks. */
  config: z.custom<MiniGPT4Config>((value) => typeof value === "object" && value !== null),
  /** Quantization of the language model's matrices on devices where it is fast; float32 elsewhere. */
  quantization: z.enum(["int4", "float32"]),
  template: z.enum(Object.keys(promptTemplates) as [PromptTemplate["name"], ...PromptTemplate["name"][]]),
  describe: z.object({ prompt: z.string(), beginsWith: z.string(), stop: z.array(z.string()).readonly() }),
  /** Positions of prompt and generated text together. */
  contextLength: z.int().positive(),
  /** Tensors of each part; offsets are into the concatenated files of `weights`. */
  tensors: z.object({ encoder: index, qformer: index, projection: index, llm: index }),
  tokenizer: file,
  weights: z.array(file),
});

export type WebModel = z.infer<typeof schema>;
export type WebModelFile = z.infer<typeof file>;

/** Parses `model.json`. @throws Error naming the fields that are wrong */
export function parseWebModel(json: unknown): WebModel {
  const { data, error } = schema.safeParse(withCurrentQuantization(json));
  if (!data) {
    throw new Error(
      `${webModelFile} is damaged or of another version; export the model again:\n${z.prettifyError(error)}`,
    );
  }
  return data;
}

/** Adds the version of the format. */
export function webModel(model: Omit<WebModel, "version">): WebModel {
  return { version, ...model };
}
