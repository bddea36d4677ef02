/** Decodes images on worker threads while the runtime computes, and augments them with a fixed set of views per image. */
import { availableParallelism } from "node:os";
import { Piscina } from "piscina";
import { type Pixels, readImage } from "../images/decode.ts";
import { type Box, crop, horizontalFlip, type ImageSpec, preprocess } from "../images/preprocess.ts";
import { Random } from "../tensor/random.ts";

/** An augmentation of an image: the whole image or a crop, flipped or not. */
export interface View {
  readonly flip: boolean;
  readonly crop?: Box;
}

/** The image without augmentation. */
export const originalView: View = { flip: false };

export interface ViewOptions {
  readonly count: number;
  /** Smallest side of a crop as a share of the image's side. */
  readonly minSide: number;
}

/**
 * The views of the image of this name: the image itself, its horizontal flip, and random crops, every second one flipped. They are the
 * same in every run, so that their features can be cached.
 */
export function createViews(name: string, { count, minSide }: ViewOptions): View[] {
  const random = new Random(hashName(name));
  return Array.from({ length: count }, (_, i) => ({
    flip: i % 2 === 1,
    crop: i < 2 ? undefined : randomCrop(random, minSide),
  }));
}

/** A unique name for a view. It is part of the ids in feature caches on disk, so it must not change. */
export function viewName({ flip, crop: box }: View): string {
  const corners = box ? [box.left, box.top, box.width, box.height].join(" ") : "whole";
  return flip ? `mirrored ${corners}` : corners;
}

/** Crops and flips an image. */
export function applyView(pixels: Pixels, { flip, crop: box }: View): Pixels {
  const cropped = box ? crop(pixels, box) : pixels;
  return flip ? horizontalFlip(cropped) : cropped;
}

function randomCrop(random: Random, minSide: number): Box {
  const side = () => minSide + (1 - minSide) * random.uniform();
  const [width, height] = [side(), side()];
  return { left: random.uniform() * (1 - width), top: random.uniform() * (1 - height), width, height };
}

/** FNV-1a over the name's UTF-16 code units. */
function hashName(name: string): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < name.length; i++) hash = Math.imul(hash ^ name.charCodeAt(i), 0x01000193);
  return hash >>> 0;
}

export interface DecodeTask {
  /** For error messages. */
  readonly name: string;
  /** The encoded image. */
  readonly bytes: Uint8Array;
  readonly view: View;
  readonly spec: ImageSpec;
}

/** Decodes, augments and preprocesses an image. @returns pixel values [3, size, size]. @throws ImageError if it cannot be decoded */
export async function decodeImage({ name, bytes, view, spec }: DecodeTask): Promise<Float32Array> {
  return preprocess(applyView(await readImage(bytes, { name }), view), spec).data;
}

export interface Decoder {
  /** @returns pixel values [3, size, size]. @throws Error if the image cannot be decoded */
  decode(task: DecodeTask): Promise<Float32Array>;
  close(): Promise<void>;
}

/** At most four workers, leaving one core to the runtime. */
export function defaultWorkers(): number {
  return Math.max(1, Math.min(4, availableParallelism() - 1));
}

/** @param workers number of threads; 0 decodes on the calling thread */
export function startDecoder(workers: number): Decoder {
  if (workers === 0) return { decode: decodeImage, close: async () => {} };
  const fromSource = import.meta.url.endsWith(".ts");
  const pool = new Piscina<DecodeTask, Float32Array>({
    filename: new URL(`./decode-worker.${fromSource ? "ts" : "js"}`, import.meta.url).href,
    minThreads: workers,
    maxThreads: workers,
    // Tasks are queued in the workers: the runtime blocks this thread, so it could not dispatch the next task in time.
    concurrentTasksPerWorker: 1024,
    // When run from source, workers need the TypeScript loader, too.
    execArgv: fromSource ? ["--import", "tsx"] : undefined,
  });
  return { decode: (task) => pool.run(task), close: () => pool.close({ force: true }) };
}
