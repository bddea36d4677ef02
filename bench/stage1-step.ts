/**
 * Our side of the stage-1 benchmark, in a process of its own: a line names what to run, the answer is a `StepAnswer`.
 *
 * Argument: the JSON of a `Stage1Task`.
 */
import { createInterface } from "node:readline";
import { FrozenFeatures } from "../src/data/frozen-features.ts";
import { openSafetensors } from "../src/formats/safetensors.ts";
import { tokensPerImage } from "../src/models/minigpt4.ts";
import { type NdArray, ndarray } from "../src/tensor/array.ts";
import { openParts } from "../src/training/parts.ts";
import { readMiniGPT4Recipe } from "../src/training/recipe.ts";
import { captionStage } from "../src/training/stages/caption-stage.ts";
import { batchSequences } from "../src/training/stages/sequences.ts";
import { TrainingStep } from "../src/training/step.ts";
import { readSettings } from "../src/training/trainer.ts";
import { initialState } from "../src/training/training-state.ts";
import type { Stage1Task, StepAnswer } from "./stage1.ts";

const { folder, recipePath, captions, threads, cached }: Stage1Task = JSON.parse(process.argv[2] as string);

const session = { threads, device: "cpu" as const };
const recipe = await readMiniGPT4Recipe(recipePath);
const parts = await openParts(recipe);
const stage = captionStage({ recipe, parts, source: parts.image, prompts: [], textsOf: () => [] });
const weights: Record<string, NdArray<"float32">> = {};
for (const name of stage.trained.keys()) {
  const shape = parts.image.tensors.get(name)?.shape ?? [];
  weights[name] = ndarray("float32", shape, await parts.image.readFloat32(name));
}
const step = await TrainingStep.create({
  graph: stage.graph,
  loss: stage.loss,
  trained: stage.trained,
  state: initialState(weights),
  optimizer: readSettings(recipe, 1).optimizer,
  session,
});

const samples = captions.map((answer, image) => ({
  image,
  prompt: [{ ids: [parts.llm.tokenizer.bosId as number] }, "image" as const],
  answers: [answer],
}));
const { feeds, targets } = batchSequences(samples, tokensPerImage(parts.config));
const targetShare = ndarray("float32", [], Float32Array.of(1 / targets));
const frozen = new FrozenFeatures(parts.frozen, undefined, session);
const loaded = await loadPixels();
const kept = cached ? await frozen.compute(loaded) : undefined;
// What is fed need not be computed: its memory should not count.
if (cached) await frozen.close();

async function loadPixels() {
  const file = await openSafetensors(`${folder}/pixels.safetensors`);
  const pixels = await file.readFloat32("pixels");
  await file.close();
  const size = pixels.length / captions.length;
  return captions.map((_, i) => ({ id: "", pixels: pixels.subarray(i * size, (i + 1) * size) }));
}

console.log("ready");
for await (const _ of createInterface({ input: process.stdin })) {
  const started = performance.now();
  const features = kept ?? (await frozen.compute(loaded));
  const { loss } = await step.run([{ ...feeds, features, targetShare }], 1e-4);
  const milliseconds = performance.now() - started;
  const answer: StepAnswer = { milliseconds, loss, peakBytes: process.resourceUsage().maxRSS * 1024 };
  console.log(JSON.stringify(answer));
}
