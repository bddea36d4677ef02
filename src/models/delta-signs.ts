/** Differences between language models, which are published in place of models and mistaken for them. */
import type { WeightSource } from "../nn/weights.ts";

/** The norm before the output layer multiplies by 1 to 2 in every known model; in a difference it is near 0. */
const smallestNorm = 0.1;
const lastNorm = "model.norm.weight";

/** Whether these weights are a difference that was not added to its base yet. */
export async function isUnmergedDelta(source: WeightSource): Promise<boolean> {
  if (!source.tensors.has(lastNorm)) return false;
  const values = await source.readFloat32(lastNorm);
  const mean = values.reduce((sum, value) => sum + Math.abs(value), 0) / values.length;
  return mean < smallestNorm;
}

/** What to say about it. */
export function deltaMessage(path: string): string {
  return (
    `${path} is a difference to another model (its norm weights are near 0, not near 1), not a model: ` +
    "add it to the LLaMA that it was made for with minigpt4 delta apply --base LLAMA --delta VICUNA --out FOLDER"
  );
}
