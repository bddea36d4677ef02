/** A training step in float32 (small Q-Former and projection through a frozen SmolLM2-135M) against PyTorch. */
import { join } from "node:path";
import { openLlama } from "../src/models/llama-folder.ts";
import { type MiniGPT4Config, tokensPerImage } from "../src/models/minigpt4.ts";
import { initialProjection, initialQFormer } from "../src/models/qformer-init.ts";
import { Weights } from "../src/nn/weights.ts";
import { ndarray } from "../src/tensor/array.ts";
import { Graph } from "../src/tensor/graph.ts";
import { Random } from "../src/tensor/random.ts";
import { weightsInMemory } from "../src/tensor/weight-source.ts";
import { meanLoss, tokenLosses } from "../src/training/stages/caption-loss.ts";
import { batchSequences } from "../src/training/stages/sequences.ts";
import { TrainingStep } from "../src/training/step.ts";
import { initialState } from "../src/training/training-state.ts";
import { type Contest, paired } from "./paired.ts";
import { StepProcess } from "./step-process.ts";

const batch = 16;
const answerLength = 12;
const qformer = {
  numQueryTokens: 8,
  hiddenSize: 384,
  numHiddenLayers: 3,
  numAttentionHeads: 6,
  intermediateSize: 1536,
  encoderWidth: 1280,
  crossAttentionFrequency: 1,
  layerNormEps: 1e-12,
};
const optimizer = { beta1: 0.9, beta2: 0.999, eps: 1e-8, weightDecay: 0.05 };

export interface Training {
  /** Milliseconds a step. */
  readonly step: Contest;
  /** Floating-point operations of one step in the language model, forward and backward to its input. */
  readonly operations: number;
}

export async function benchTraining(path: string, threads: number, rounds: number): Promise<Training> {
  const ours = await ourStep(path, threads);
  const theirs = await StepProcess.python(join(import.meta.dirname, "training_step.py"), [`${threads}`]);
  try {
    return {
      step: await paired(ours.run, async () => Number(await theirs.ask("step")), rounds),
      operations: ours.operations,
    };
  } finally {
    theirs.stop();
    await ours.close();
  }
}

async function ourStep(path: string, threads: number) {
  const { config: llm, checkpoint } = await openLlama(path);
  const config: MiniGPT4Config = { encoder: { type: "efficientnet_lite0", imageSize: 224 }, qformer, llm };
  const random = new Random(1);
  const projection = initialProjection(qformer.hiddenSize, llm.hiddenSize, random);
  const arrays = { ...initialQFormer(qformer, random), ...projection };
  const graph = new Graph();
  const trained = new Weights(graph, weightsInMemory("new weights", arrays), { trainable: () => true });
  const weights = { encoder: trained, qformer: trained, projection: trained, llm: new Weights(graph, checkpoint) };
  const loss = meanLoss(tokenLosses(weights, config));
  const step = await TrainingStep.create({
    graph,
    loss,
    trained: trained.trained,
    state: initialState(arrays),
    optimizer,
    session: { threads },
  });
  const features = Float32Array.from({ length: batch * 49 * 1280 }, () => Math.max(0, random.normal()));
  const samples = Array.from({ length: batch }, (_, image) => ({
    image,
    prompt: [{ ids: [1] }, "image" as const, { ids: [42, 43, 44] }],
    answers: [Array.from({ length: answerLength }, (_, i) => 100 + ((image * 7 + i * 13) % 40000))],
  }));
  const { feeds: sequences, paddedTokens, targets } = batchSequences(samples, tokensPerImage(config));
  const feeds = {
    ...sequences,
    features: ndarray("float32", [batch, 49, 1280], features),
    targetShare: ndarray("float32", [], Float32Array.of(1 / targets)),
  };
  const { hiddenSize, intermediateSize, numHiddenLayers, numAttentionHeads, numKeyValueHeads, headDim } = llm;
  const attention = hiddenSize * headDim * (2 * numAttentionHeads + 2 * numKeyValueHeads);
  const layers = numHiddenLayers * (attention + 3 * hiddenSize * intermediateSize);
  const head = hiddenSize * llm.vocabSize;
  return {
    operations: 4 * (paddedTokens * layers + batch * answerLength * head),
    async run() {
      const started = performance.now();
      await step.run([feeds], 1e-4);
      return performance.now() - started;
    },
    close: () => step.close(),
  };
}
