/** Worker threads that decode images while the engine computes, which blocks the thread that it runs on. */

import { availableParallelism } from "node:os";
import { Piscina } from "piscina";
import { type Pixels, readImage } from "../images/decode.ts";
import { type Box, crop, horizontalFlip, type ImageSpec, preprocess } from "../images/preprocess.ts";
import { Random } from "../tensor/random.ts";

// Ways of looking at one image in training: as it is, mirrored, and cropped, the same ones in every run.

export interface View {
  readonly mirrored: boolean;
  readonly box?: Box;
}

/** The image as it is. */
export const unchangedView: View = { mirrored: false };

export interface ViewOptions {
  readonly count: number;
  /** Smallest side of a crop as a share of the image's side. */
  readonly minSide: number;
}

/** `count` views of the image of this name: itself, its mirror image, and crops, every second one mirrored. */
export function viewsOf(name: string, { count, minSide }: ViewOptions): View[] {
  const random = new Random(seedOf(name));
  return Array.from({ length: count }, (_, i) => ({
    mirrored: i % 2 === 1,
    ...(i < 2 ? {} : { box: randomBox(random, minSide) }),
  }));
}

/** A name for the view: the same for the same view, another for each other one. */
export function viewName({ mirrored, box }: View): string {
  const corners = box ? [box.left, box.top, box.width, box.height].join(" ") : "whole";
  return mirrored ? `mirrored ${corners}` : corners;
}

/** The image as a view shows it. */
export function show(pixels: Pixels, { mirrored, box }: View): Pixels {
  const seen = box ? crop(pixels, box) : pixels;
  return mirrored ? horizontalFlip(seen) : seen;
}

function randomBox(random: Random, minSide: number): Box {
  const side = () => minSide + (1 - minSide) * random.uniform();
  const [width, height] = [side(), side()];
  return { left: random.uniform() * (1 - width), top: random.uniform() * (1 - height), width, height };
}

/** FNV-1a over the name's characters. */
function seedOf(name: string): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < name.length; i++) hash = Math.imul(hash ^ name.charCodeAt(i), 0x01000193);
  return hash >>> 0;
}

// An encoded image becomes the image encoder's input.

export interface DecodeTask {
  /** For messages. */
  readonly name: string;
  /** The encoded image. */
  readonly bytes: Uint8Array;
  readonly view: View;
  readonly spec: ImageSpec;
}

/** @returns the values of [3, size, size]. @throws ImageError if it is no image that can be read */
export async function decodeImage({ name, bytes, view, spec }: DecodeTask): Promise<Float32Array> {
  return preprocess(show(await readImage(bytes, { name }), view), spec).data;
}

export interface Decoder {
  /** @returns the values of [3, size, size]. @throws Error if it is no image that can be read */
  decode(task: DecodeTask): Promise<Float32Array>;
  close(): Promise<void>;
}

/** As many workers as leave the engine a core, at most four. */
export function defaultWorkers(): number {
  return Math.max(1, Math.min(4, availableParallelism() - 1));
}

/** @param workers threads; with 0, images are decoded on this thread */
export function startDecoder(workers: number): Decoder {
  if (workers === 0) return { decode: decodeImage, close: async () => {} };
  const fromSource = import.meta.url.endsWith(".ts");
  const pool = new Piscina<DecodeTask, Float32Array>({
    filename: new URL(`./decode-worker.${fromSource ? "ts" : "js"}`, import.meta.url).href,
    minThreads: workers,
    maxThreads: workers,
    // Tasks are handed out at once: while the engine computes, nobody is there to hand out the next one.
    concurrentTasksPerWorker: 1024,
    // From its sources the project runs through a loader, of which workers must know.
    ...(fromSource && { execArgv: ["--import", "tsx"] }),
  });
  return { decode: (task) => pool.run(task), close: () => pool.close({ force: true }) };
}
