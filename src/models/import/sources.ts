/** The released files of a MiniGPT-4, opened and checked against each other before anything is written. */
import { stat } from "node:fs/promises";
import { type Checkpoint, openCheckpoint } from "../../checkpoints/checkpoint.ts";
import { layeredWeights } from "../../nn/layered-weights.ts";
import { type WeightSource, weightsInMemory } from "../../nn/weights.ts";
import { deltaMessage, isUnmergedDelta } from "../delta-signs.ts";
import type { ImageSources, MiniGPT4Config } from "../minigpt4.ts";
import { misfit } from "../misfit.ts";
import { encoderConfig, encoderSchema, type ModelFolderJson, qformerConfig, qformerSchema } from "../model-folder.ts";
import { type OpenLlama, openLlama } from "../open-llama.ts";
import { usedByImages, usedByLlama } from "../used-tensors.ts";
import { type Heads, projectionDimensions, qformerDimensions, vitDimensions } from "./dimensions.ts";
import { expectPart } from "./recognise.ts";

export interface SourcePaths {
  readonly vit: string;
  /** Without it, the form of the Llama 2 release: four neighbouring patches become one token. */
  readonly qformer?: string | undefined;
  /** A folder as Hugging Face has it, or a GGUF file. */
  readonly llm: string;
  readonly projection: string;
}

export interface Sources {
  readonly vit: Checkpoint;
  readonly qformer?: Checkpoint;
  readonly projection: Checkpoint;
  readonly llm: OpenLlama;
  /** The norm behind the image encoder, of models without a Q-Former. */
  readonly lnVision?: WeightSource;
  readonly json: Pick<ModelFolderJson, "encoder" | "qformer">;
  /** The tensors that are used, by part. */
  readonly used: Readonly<Record<keyof ImageSources | "llm", ReadonlySet<string>>>;
  close(): Promise<void>;
}

/** @throws Error naming files, tensors and shapes if a file is not what its option is for, or two do not fit each other */
export async function openSources(paths: SourcePaths, heads: Heads): Promise<Sources> {
  const open: Checkpoint[] = [];
  const close = async () => {
    for (const checkpoint of open) await checkpoint.close();
  };
  const opened = async (path: string, kind: "vit" | "qformer" | "projection") => {
    const checkpoint = await openCheckpoint(path);
    open.push(checkpoint);
    expectPart(checkpoint, kind);
    return checkpoint;
  };
  try {
    const vit = await opened(paths.vit, "vit");
    const qformer = paths.qformer === undefined ? undefined : await opened(paths.qformer, "qformer");
    const projection = await opened(paths.projection, "projection");
    const llm = await openLlm(paths.llm, open);
    const json = {
      encoder: vitDimensions(vit, heads),
      ...(qformer && { qformer: qformerDimensions(qformer, heads) }),
    };
    const config: MiniGPT4Config = {
      encoder: encoderConfig(encoderSchema.parse(json.encoder)),
      ...qformerConfig(json.qformer && qformerSchema.parse(json.qformer)),
      llm: llm.config,
    };
    checkFit({ vit, qformer, projection, llm }, config);
    const lnVision = qformer ? undefined : lnVisionOf(vit, projection, json.encoder.hidden_size ?? 0);
    const images = usedByImages({ encoder: vit, qformer: qformer ?? lnVision ?? vit, projection }, config);
    const used = { ...images, llm: usedByLlama(llm.checkpoint, llm.config) };
    if (await isUnmergedDelta(llm.checkpoint)) throw new Error(deltaMessage(paths.llm));
    return { vit, ...(qformer && { qformer }), projection, llm, ...(lnVision && { lnVision }), json, used, close };
  } catch (error) {
    await close();
    throw error;
  }
}

async function openLlm(path: string, open: Checkpoint[]): Promise<OpenLlama> {
  if ((await stat(path)).isFile()) {
    const file = await openCheckpoint(path);
    open.push(file);
    if (file.format !== "gguf") expectPart(file, "llm");
  }
  const llm = await openLlama(path);
  open.push(llm.checkpoint);
  return llm;
}

type Parts = Pick<Sources, "vit" | "projection" | "llm"> & { readonly qformer: Checkpoint | undefined };

/** The mistakes that people make, told with both sides. */
function checkFit({ vit, qformer, projection, llm }: Parts, { encoder, qformer: q, llm: l }: MiniGPT4Config): void {
  const [to, from] = projectionDimensions(projection);
  const shape = `llama_proj.weight is [${to}, ${from}]`;
  if (to !== l.hiddenSize) {
    throw new Error(misfit({ path: projection.path, to, from }, { path: llm.checkpoint.path, width: l.hiddenSize }));
  }
  const width = encoder.type === "eva_vit" ? encoder.hiddenSize : 0;
  if (q && q.encoderWidth !== width) {
    throw new Error(
      `${qformer?.path} and ${vit.path} do not fit: the Q-Former looks at features of width ${q.encoderWidth}, ` +
        `but the image encoder's have ${width}`,
    );
  }
  const joined = 4 * width;
  const expected = q?.hiddenSize ?? joined;
  if (from === expected) return;
  if (q && from === joined) {
    throw new Error(
      `${projection.path}: ${shape}, of the form without a Q-Former; leave out --qformer ${qformer?.path}`,
    );
  }
  const without = q ? "" : "; was it made with a Q-Former? Then give one with --qformer";
  throw new Error(`${projection.path}: ${shape}, but what it gets is ${expected} wide${without}`);
}

/**
 * Without a Q-Former's file, whose norm it usually is, the original leaves `ln_vision` as it is created: it scales by 1
 * and adds 0. A projection's file that holds another one counts.
 */
function lnVisionOf(vit: Checkpoint, projection: Checkpoint, width: number): WeightSource {
  const created = weightsInMemory("the norm as it is created", {
    "ln_vision.weight": { shape: [width], data: new Float32Array(width).fill(1) },
    "ln_vision.bias": { shape: [width], data: new Float32Array(width) },
  });
  return layeredWeights([projection, vit, created]);
}
