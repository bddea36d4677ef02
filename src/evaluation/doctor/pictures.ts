/** Whether pictures become image tokens that are numbers and differ. */
import { imageOutputs } from "../../chat/graphs.ts";
import { type ImageSources, imageWeights, type MiniGPT4Config } from "../../models/minigpt4.ts";
import { ndarray } from "../../tensor/array.ts";
import { Graph } from "../../tensor/graph.ts";
import { Random } from "../../tensor/random.ts";
import { evaluate, type SessionOptions } from "../../tensor/session.ts";
import type { Findings } from "./finding.ts";

/** Runs the image part on two pictures: one of noise, one of a single colour. */
export async function checkPictures(
  findings: Findings,
  sources: ImageSources,
  config: MiniGPT4Config,
  options: SessionOptions,
): Promise<void> {
  const { imageSize } = config.encoder;
  const size = 3 * imageSize * imageSize;
  const random = new Random(1);
  const pixels = Float32Array.from({ length: 2 * size }, (_, i) => (i < size ? random.normal() : 0.5));
  const graph = new Graph();
  const outputs = imageOutputs(graph, imageWeights(graph, sources), config);
  const feeds = { pixels: ndarray("float32", [2, 3, imageSize, imageSize], pixels) };
  const tokens = (await evaluate(graph, outputs, feeds, options)).tokens.data as Float32Array;
  const remedy = "The weights of encoder, Q-Former or projection are damaged, or not those that belong together.";
  if (!tokens.every(Number.isFinite)) {
    findings.fault("pictures", "Image tokens are infinite or no numbers", remedy);
    return;
  }
  const half = tokens.length / 2;
  const differ = tokens.subarray(0, half).some((value, i) => Math.abs(value - (tokens[half + i] as number)) > 1e-6);
  if (!differ) findings.fault("pictures", "Quite different pictures give the same image tokens", remedy);
}
