/** Losses, gradients and a whole small training run against the original's. */
import { join } from "node:path";
import { describe, test } from "vitest";
import { openCheckpoint } from "../../src/checkpoints/checkpoint.ts";
import type { MiniGPT4Config } from "../../src/models/minigpt4.ts";
import { tokensPerImage } from "../../src/models/minigpt4.ts";
import { type NdArray, ndarray } from "../../src/tensor/array.ts";
import { gradients } from "../../src/tensor/gradients.ts";
import { Graph, type Value } from "../../src/tensor/graph.ts";
import { evaluate } from "../../src/tensor/session.ts";
import { loadTokenizer, type Tokenizer } from "../../src/text/tokenizer.ts";
import { batchArrays } from "../../src/training/batch.ts";
import { captionLoss } from "../../src/training/loss.ts";
import { learningRate } from "../../src/training/schedule.ts";
import { answerTokens, promptPieces, stage1Prompt } from "../../src/training/stages.ts";
import { initialState, TrainingStep } from "../../src/training/step.ts";
import { expectDeviation, largestDifference, relativeDifference } from "./deviations.ts";
import { GoldenSet, goldenFolders } from "./golden-set.ts";

const isProjection = (name: string) => name.startsWith("llama_proj.");

describe.each(goldenFolders())("%s", (folder) => {
  const name = folder.split(/[\\/]/).at(-1);

  test.each(["stage1", "stage2"] as const)("%s: loss and gradients of the projection", async (stage) => {
    const set = await GoldenSet.load(folder);
    const config = set.config();
    const graph = new Graph();
    const w = await set.weights(graph, {}, isProjection);
    const loss = captionLoss(w, config);
    const trained = w.projection.trained;
    const names = ["llama_proj.weight", "llama_proj.bias"];
    const [weight, bias] = gradients(
      loss,
      names.map((key) => trained.get(key) as Value),
    ) as [Value, Value];
    const batch = await stageBatch(set, config, stage, [0, 1, 2, 3, 4, 5, 6, 7]);
    const results = await evaluate(graph, { loss, weight, bias }, { ...batch, ...(await projection(set)) });
    expectDeviation(
      `${name}: ${stage} loss`,
      Math.abs((results.loss.data[0] as number) - set.goldens[stage].loss),
      1e-4,
    );
    for (const part of ["weight", "bias"] as const) {
      const expected = await set.tensors.readFloat32(`${stage}_grad_${part}`);
      expectDeviation(
        `${name}: ${stage} gradient of llama_proj.${part} (relative)`,
        relativeDifference(results[part].data as Float32Array, expected),
        1e-3,
      );
    }
    await set.close();
  });

  test("the training trace", async () => {
    const set = await GoldenSet.load(folder);
    const config = set.config();
    const { training } = set.goldens;
    const graph = new Graph();
    const w = await set.weights(graph, {}, isProjection);
    const loss = captionLoss(w, config);
    const optimizer = {
      beta1: training.betas[0],
      beta2: training.betas[1],
      eps: training.eps,
      weightDecay: training.weight_decay.weight,
    };
    const state = initialState(await projection(set));
    const step = await TrainingStep.create(graph, loss, w.projection.trained, state, optimizer);
    const schedule = {
      initLr: training.init_lr,
      minLr: training.min_lr,
      warmupLr: training.warmup_lr,
      warmupSteps: training.warmup_steps,
      totalSteps: training.trace.length,
    };
    let largestRate = 0;
    let largestLoss = 0;
    for (const expected of training.trace) {
      const rate = learningRate(expected.step, schedule);
      const batch = await stageBatch(set, config, "stage1", expected.samples);
      const result = await step.run(batch, rate);
      largestRate = Math.max(largestRate, Math.abs(rate - expected.lr));
      largestLoss = Math.max(largestLoss, Math.abs((result.loss.data[0] as number) - expected.loss));
    }
    expectDeviation(`${name}: learning rates of ${training.trace.length} steps`, largestRate, 1e-9);
    expectDeviation(`${name}: losses of ${training.trace.length} steps`, largestLoss, 1e-3);
    for (const part of ["weight", "bias"] as const) {
      const found = step.state.parameters[`llama_proj.${part}`]?.data as Float32Array;
      const expected = await set.tensors.readFloat32(`trained_${part}`);
      expectDeviation(`${name}: trained llama_proj.${part}`, largestDifference(found, expected), 1e-3);
    }
    await step.release();
    await set.close();
  });
});

/** The stage's batch of the given pictures: features of `ln_vision`, prompts and answers as the goldens say. */
async function stageBatch(
  set: GoldenSet,
  config: MiniGPT4Config,
  stage: "stage1" | "stage2",
  pictures: readonly number[],
) {
  const tokenizer = await loadTokenizer(join(set.folder, "llama-safetensors"));
  const { answers, instruction, max_txt_len: maxLength, end_sym: endSym } = set.goldens[stage];
  const samples = pictures.map((picture, i) => ({
    image: i,
    prompt: prompt(tokenizer, instruction?.[picture]),
    answers: [answerTokens(answers[picture] as string, { endSym, maxLength }, tokenizer)],
  }));
  return batchArrays(samples, await features(set, pictures), tokensPerImage(config));
}

function prompt(tokenizer: Tokenizer, instruction: string | undefined) {
  return instruction === undefined ? stage1Prompt(tokenizer) : promptPieces(instruction, tokenizer);
}

async function features(set: GoldenSet, pictures: readonly number[]): Promise<NdArray<"float32">> {
  const [, cells = 0, width = 0] = set.tensors.tensors.get("ln_vision")?.shape ?? [];
  const all = await set.tensors.readFloat32("ln_vision");
  const size = cells * width;
  const chosen = new Float32Array(pictures.length * size);
  pictures.forEach((picture, i) => {
    chosen.set(all.subarray(picture * size, (picture + 1) * size), i * size);
  });
  return ndarray("float32", [pictures.length, cells, width], chosen);
}

async function projection(set: GoldenSet): Promise<Record<string, NdArray<"float32">>> {
  const { llm, qformer } = set.config();
  const file = await openCheckpoint(join(set.folder, "minigpt4.pth"));
  const weight = await file.readFloat32("llama_proj.weight");
  const bias = await file.readFloat32("llama_proj.bias");
  await file.close();
  return {
    "llama_proj.weight": ndarray("float32", [llm.hiddenSize, qformer?.hiddenSize ?? 0], weight),
    "llama_proj.bias": ndarray("float32", [llm.hiddenSize], bias),
  };
}
