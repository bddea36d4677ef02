/** Whether pictures become image tokens that are numbers and differ. */
import { openImageRunner } from "../../chat/create.ts";
import { ndarray } from "../../tensor/array.ts";
import { Random } from "../../tensor/random.ts";
import type { SessionOptions } from "../../tensor/session.ts";
import type { Findings } from "./finding.ts";

/** Runs the image part on two pictures: one of noise, one of a single colour. */
export async function checkPictures(
  findings: Findings,
  parts: Parameters<typeof openImageRunner>[0],
  options: SessionOptions,
): Promise<void> {
  const { imageSize } = parts.config.encoder;
  const shape = [1, 3, imageSize, imageSize];
  const random = new Random(1);
  const noise = Float32Array.from({ length: 3 * imageSize * imageSize }, () => random.normal());
  const runner = await openImageRunner(parts, options);
  const read = async (pixels: Float32Array) =>
    (await runner.run({ pixels: ndarray("float32", shape, pixels) })).tokens.data as Float32Array;
  const [first, second] = [await read(noise), await read(new Float32Array(noise.length).fill(0.5))];
  await runner.release();
  const remedy = "The weights of encoder, Q-Former or projection are damaged, or not those that belong together.";
  if (![first, second].every((tokens) => tokens.every(Number.isFinite))) {
    findings.fault("pictures", "Image tokens are infinite or no numbers", remedy);
    return;
  }
  const differ = first.some((value, i) => Math.abs(value - (second[i] as number)) > 1e-6);
  if (!differ) findings.fault("pictures", "Quite different pictures give the same image tokens", remedy);
}
