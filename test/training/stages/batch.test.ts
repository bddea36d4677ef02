import { describe, expect, test } from "vitest";
import { type MiniGPT4Config, tokensPerImage } from "../../../src/models/minigpt4.ts";
import { initialProjection, initialQFormer } from "../../../src/models/qformer-init.ts";
import { Weights } from "../../../src/nn/weights.ts";
import { Session } from "../../../src/runtime/session.ts";
import { type NdArray, ndarray } from "../../../src/tensor/array.ts";
import { Graph } from "../../../src/tensor/graph.ts";
import { Random } from "../../../src/tensor/random.ts";
import { weightsInMemory } from "../../../src/tensor/weight-source.ts";
import { tokenLosses } from "../../../src/training/stages/caption-loss.ts";
import type { Sample } from "../../../src/training/stages/sequences.ts";
import { batchSequences } from "../../../src/training/stages/sequences.ts";

const llm = {
  vocabSize: 30,
  hiddenSize: 16,
  intermediateSize: 24,
  numHiddenLayers: 2,
  numAttentionHeads: 4,
  numKeyValueHeads: 2,
  headDim: 4,
  rmsNormEps: 1e-5,
  ropeTheta: 10000,
  maxPositionEmbeddings: 64,
  tieWordEmbeddings: true,
};
const qformer = {
  numQueryTokens: 3,
  hiddenSize: 8,
  numHiddenLayers: 1,
  numAttentionHeads: 2,
  intermediateSize: 8,
  encoderWidth: 1280,
  crossAttentionFrequency: 1,
  layerNormEps: 1e-12,
};
const config: MiniGPT4Config = { encoder: { type: "efficientnet_lite0", imageSize: 32 }, qformer, llm };

/** A tiny language model with random weights. */
function randomLlama(random: Random) {
  const arrays: Record<string, NdArray<"float32">> = {};
  const add = (name: string, ...shape: number[]) => {
    const size = shape.reduce((a, b) => a * b);
    arrays[name] = ndarray(
      "float32",
      shape,
      Float32Array.from({ length: size }, () => random.normal() * 0.5),
    );
  };
  add("model.embed_tokens.weight", 30, 16);
  add("model.norm.weight", 16);
  for (let i = 0; i < 2; i++) {
    const layer = `model.layers.${i}`;
    add(`${layer}.input_layernorm.weight`, 16);
    add(`${layer}.post_attention_layernorm.weight`, 16);
    add(`${layer}.self_attn.q_proj.weight`, 16, 16);
    add(`${layer}.self_attn.k_proj.weight`, 8, 16);
    add(`${layer}.self_attn.v_proj.weight`, 8, 16);
    add(`${layer}.self_attn.o_proj.weight`, 16, 16);
    add(`${layer}.mlp.gate_proj.weight`, 24, 16);
    add(`${layer}.mlp.up_proj.weight`, 24, 16);
    add(`${layer}.mlp.down_proj.weight`, 16, 24);
  }
  return arrays;
}

describe("packed samples, and answers that share an image and a prompt", async () => {
  const random = new Random(5);
  const arrays = { ...initialQFormer(qformer, random), ...initialProjection(8, 16, random), ...randomLlama(random) };
  const graph = new Graph();
  const w = new Weights(graph, weightsInMemory("random", arrays));
  const losses = tokenLosses({ encoder: w, qformer: w, projection: w, llm: w }, config);
  const session = await Session.create(graph, { losses }, { device: "cpu", threads: 1 });
  const features = ndarray(
    "float32",
    [2, 1, 1280],
    Float32Array.from({ length: 2560 }, () => random.normal()),
  );
  const run = async (samples: readonly Sample[]) => {
    const { feeds } = batchSequences(samples, tokensPerImage(config));
    return [...((await session.run({ ...feeds, features })).losses.data as Float32Array)];
  };
  const prompt = [{ ids: [1] }, "image" as const, { ids: [2, 3] }];

  test("have the losses that they have alone", async () => {
    const answers = [[4, 5, 6, 7], [8], [9, 10, 11]];
    const together = await run([
      { image: 1, prompt, answers },
      { image: 0, prompt: ["image"], answers: [[12, 13]] },
    ]);
    const alone: number[] = [];
    for (const answer of answers) alone.push(...(await run([{ image: 1, prompt, answers: [answer] }])));
    alone.push(...(await run([{ image: 0, prompt: ["image"], answers: [[12, 13]] }])));
    expect(together).toHaveLength(alone.length);
    together.forEach((loss, i) => {
      expect(loss).toBeCloseTo(alone[i] as number, 4);
    });
  });

  test("depend on their image", async () => {
    const [first] = await run([{ image: 0, prompt, answers: [[4]] }]);
    const [second] = await run([{ image: 1, prompt, answers: [[4]] }]);
    expect(Math.abs((first as number) - (second as number))).toBeGreaterThan(1e-6);
  });
});

test("counts targets, tokens and padding", () => {
  const { targets, tokens, paddedTokens } = batchSequences(
    [
      { image: 0, prompt: ["image", { ids: [1] }], answers: [[2, 3, 4], [5]] },
      { image: 1, prompt: ["image"], answers: [[]] },
    ],
    3,
  );
  // 3 + 1 of the prompt and two more that predict; then 3 of the image alone.
  expect({ targets, tokens }).toEqual({ targets: 4, tokens: 9 });
  expect(paddedTokens).toBeGreaterThanOrEqual(9);
});
