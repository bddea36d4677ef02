/** A folder of the golden layout: small checkpoints in the released forms, and what the original computes from them. */
import { readFileSync } from "node:fs";
import { basename, join } from "node:path";
import { type Checkpoint, openCheckpoint } from "../../src/formats/open.ts";
import { llamaConfigFromJson } from "../../src/models/llama-folder.ts";
import type { MiniGPT4Config, MiniGPT4Weights } from "../../src/models/minigpt4.ts";
import { type WeightOptions, Weights } from "../../src/nn/weights.ts";
import { type NdArray, ndarray } from "../../src/tensor/array.ts";
import type { Graph } from "../../src/tensor/graph.ts";
import { findGoldenFolders } from "./golden-forms.ts";

/** The folder to check: MINIGPT4_GOLDENS, or the sets that come with the project. */
export const goldenRoot = process.env.MINIGPT4_GOLDENS ?? join(import.meta.dirname, "../reference/golden");

/** The folders at or below the root in the form of MiniGPT-4. */
export function goldenFolders(): string[] {
  return findGoldenFolders(goldenRoot).flatMap(({ path, form }) => (form === "minigpt4" ? [path] : []));
}

export interface DialogueTurn {
  readonly prompt: string;
  readonly segment_ids: readonly (readonly number[])[];
  readonly question: string;
  readonly greedy: readonly number[];
  readonly greedy_rp: readonly number[];
  readonly beam5: readonly number[];
  readonly beam3_lp: readonly number[];
  readonly greedy_text: string;
}

interface StageCase {
  readonly loss: number;
  readonly answers: readonly string[];
  readonly max_txt_len: number;
  readonly end_sym: string;
  readonly instruction: readonly string[] | null;
}

export interface Goldens {
  readonly config: Readonly<Record<string, number>>;
  readonly images: readonly string[];
  readonly dialogue: readonly DialogueTurn[];
  readonly tokenizer: readonly { readonly text: string; readonly ids: readonly number[]; readonly decoded: string }[];
  readonly stage1: StageCase;
  readonly stage2: StageCase;
  readonly training: {
    readonly betas: readonly [number, number];
    readonly eps: number;
    readonly weight_decay: { readonly weight: number };
    readonly init_lr: number;
    readonly min_lr: number;
    readonly warmup_lr: number;
    readonly warmup_steps: number;
    readonly trace: readonly {
      readonly step: number;
      readonly lr: number;
      readonly loss: number;
      readonly samples: readonly number[];
    }[];
  };
  readonly qformer_pretraining: {
    readonly loss_itc: number;
    readonly loss_itm: number;
    readonly loss_lm: number;
    readonly input_ids: readonly (readonly number[])[];
    readonly attention_mask: readonly (readonly number[])[];
    readonly decoder_start_id: number;
    readonly embed_dim: number;
    readonly negative_image_of_text: readonly number[];
    readonly negative_text_of_image: readonly number[];
  };
}

/** Which of the equivalent files to read. */
export interface Layouts {
  readonly llm?: "llama-safetensors" | "llama-bin";
  readonly projection?: "minigpt4.pth" | "minigpt4-legacy.pth" | "minigpt4-noqformer.pth";
}

export class GoldenSet {
  readonly folder: string;
  readonly goldens: Goldens;
  readonly tensors: Checkpoint;
  private readonly open: Checkpoint[];

  private constructor(folder: string, tensors: Checkpoint) {
    this.folder = folder;
    this.goldens = JSON.parse(readFileSync(join(folder, "goldens.json"), "utf8"));
    this.tensors = tensors;
    this.open = [tensors];
  }

  static async load(folder: string): Promise<GoldenSet> {
    return new GoldenSet(folder, await openCheckpoint(join(folder, "goldens.safetensors")));
  }

  /** For messages. */
  get name(): string {
    return basename(this.folder);
  }

  get imagePaths(): string[] {
    return this.goldens.images.map((name) => join(this.folder, "images", name));
  }

  config(form: "qformer" | "joined patches" = "qformer"): MiniGPT4Config {
    const c = this.goldens.config as Record<string, number> & { img: number };
    const size = (key: string) => c[key] as number;
    const path = join(this.folder, "llama-safetensors", "config.json");
    return {
      encoder: {
        type: "eva_vit",
        imageSize: size("img"),
        patchSize: size("patch"),
        hiddenSize: size("vw"),
        numHiddenLayers: size("vd"),
        numAttentionHeads: size("vh"),
        intermediateSize: Math.trunc(size("vw") * size("vr")),
        layerNormEps: 1e-6,
      },
      qformer:
        form === "qformer"
          ? {
              numQueryTokens: size("nq"),
              hiddenSize: size("qw"),
              numHiddenLayers: size("qd"),
              numAttentionHeads: size("qh"),
              intermediateSize: size("qi"),
              encoderWidth: size("vw"),
              crossAttentionFrequency: 2,
              layerNormEps: 1e-12,
              vocabSize: size("qvocab"),
              maxPositionEmbeddings: 64,
            }
          : undefined,
      llm: llamaConfigFromJson(JSON.parse(readFileSync(path, "utf8")), path),
    };
  }

  /** The parts' weights as values of one graph; what `trained` says is an input. */
  async weights(
    graph: Graph,
    layouts: Layouts = {},
    trained: WeightOptions["trainable"] = () => false,
  ): Promise<MiniGPT4Weights> {
    const file = async (name: string) => {
      const checkpoint = await openCheckpoint(join(this.folder, name));
      this.open.push(checkpoint);
      return new Weights(graph, checkpoint, { trainable: trained });
    };
    return {
      encoder: await file("eva_vit.pth"),
      qformer: await file("blip2_qformer.pth"),
      projection: await file(layouts.projection ?? "minigpt4.pth"),
      llm: await file(layouts.llm ?? "llama-safetensors"),
    };
  }

  /** Weights of the Q-Former's file as arrays. */
  async qformerWeights(names: readonly string[]): Promise<Record<string, NdArray>> {
    const file = await openCheckpoint(join(this.folder, "blip2_qformer.pth"));
    const arrays: Record<string, NdArray> = {};
    for (const name of names) {
      arrays[name] = ndarray("float32", file.tensors.get(name)?.shape ?? [], await file.readFloat32(name));
    }
    await file.close();
    return arrays;
  }

  async close(): Promise<void> {
    for (const checkpoint of this.open) await checkpoint.close();
  }
}
