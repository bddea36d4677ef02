/**
 * Our side of the benchmark of encoding images, in a process of its own: a line is a number of images, the answer an
 * `EncoderAnswer`. Argument: the JSON of an `EncoderTask`.
 */
import { createInterface } from "node:readline";
import { FrozenFeatures } from "../src/data/frozen-features.ts";
import { openSafetensors } from "../src/formats/safetensors.ts";
import { encoderConfig, encoderSchema, qformerConfig, qformerSchema } from "../src/models/model-folder.ts";
import { weightsInMemory } from "../src/tensor/weight-source.ts";
import { openVision } from "../src/training/vision-parts.ts";
import type { EncoderAnswer, EncoderTask } from "./encoder.ts";

const { folder, shapes, quantization, threads }: EncoderTask = JSON.parse(process.argv[2] as string);

const vision = await openVision({
  config: {
    encoder: encoderConfig(encoderSchema.parse({ type: "eva_vit", ...shapes.encoder })),
    ...qformerConfig(qformerSchema.parse(shapes.qformer)),
  },
  files: [`${folder}/image.safetensors`],
  initial: weightsInMemory("nothing", {}),
  trained: ["projection"],
  encoderQuantization: quantization,
});
const features = new FrozenFeatures(vision.frozen, undefined, { threads, device: "cpu" });
const file = await openSafetensors(`${folder}/pixels.safetensors`);
const [, ...shape] = file.tensors.get("pixels")?.shape ?? [];
const all = await file.readFloat32("pixels");
await file.close();
const size = shape.reduce((product, dim) => product * dim, 1);

console.log("ready");
for await (const line of createInterface({ input: process.stdin })) {
  const images = Array.from({ length: Number(line) }, (_, i) => ({
    id: "",
    pixels: all.subarray(i * size, (i + 1) * size),
  }));
  const started = performance.now();
  const { data, shape: found } = await features.compute(images);
  const milliseconds = performance.now() - started;
  const first = [...data.subarray(0, data.length / (found[0] ?? 1))];
  const answer: EncoderAnswer = { milliseconds, first, peakBytes: process.resourceUsage().maxRSS * 1024 };
  console.log(JSON.stringify(answer));
}
