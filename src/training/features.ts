/** Features of all pictures of a run, computed once with the frozen encoder and kept in a file. */
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { pipeline } from "node:stream/promises";

import { openCheckpoint } from "../checkpoints/checkpoint.ts";
import { FeatureStore, featureKey } from "../data/feature-store.ts";
import type { ImageTextPair } from "../data/pairs.ts";
import { show, type ViewOptions, viewsOf } from "../data/views.ts";
import { readPicture } from "../images/picture.ts";
import { preprocess } from "../images/preprocess.ts";
import { type EncoderConfig, featureShape, imageFeatures, imageSpec } from "../models/minigpt4.ts";
import { Weights } from "../nn/weights.ts";
import { ndarray } from "../tensor/array.ts";
import { Graph } from "../tensor/graph.ts";
import { Session, type SessionOptions } from "../tensor/session.ts";

export interface FeatureOptions extends SessionOptions {
  /** Path of the encoder's weights. */
  readonly encoderPath: string;
  /** Where the features are kept. */
  readonly storePath: string;
  readonly views: ViewOptions;
  readonly onProgress?: (done: number, total: number) => void;
  readonly signal?: AbortSignal;
}

/** Rows [pictures * views] of features; row `picture * views.count + view` is one view of one picture. */
export async function openFeatures(
  pictures: readonly ImageTextPair[],
  encoder: EncoderConfig,
  { encoderPath, storePath, views, onProgress, signal, ...session }: FeatureOptions,
): Promise<FeatureStore> {
  const hashes = await Promise.all(pictures.map(({ picture }) => hashOf(picture)));
  const request = {
    path: storePath,
    key: featureKey([await hashOf(encoderPath), JSON.stringify([encoder, views]), ...hashes]),
    count: pictures.length * views.count,
    shape: featureShape(encoder),
  };
  let engine: Session<"features"> | undefined;
  try {
    return await FeatureStore.open(
      request,
      async (first) => {
        signal?.throwIfAborted();
        engine ??= await encoderSession(encoder, encoderPath, session);
        return encodeViews(engine, encoder, pictures[first / views.count] as ImageTextPair, first / views.count, views);
      },
      (done) => onProgress?.(done / views.count, pictures.length),
    );
  } finally {
    await engine?.release();
  }
}

async function encodeViews(
  engine: Session<"features">,
  encoder: EncoderConfig,
  { picture }: ImageTextPair,
  index: number,
  views: ViewOptions,
): Promise<Float32Array[]> {
  const pixels = await readPicture(picture);
  const spec = imageSpec(encoder);
  const inputs = viewsOf(index, views).map((view) => preprocess(show(pixels, view), spec).data);
  const size = inputs[0]?.length ?? 0;
  const batch = new Float32Array(inputs.length * size);
  inputs.forEach((input, i) => {
    batch.set(input, i * size);
  });
  const { features } = await engine.run({
    pixels: ndarray("float32", [inputs.length, 3, spec.size, spec.size], batch),
  });
  const rows = features.data as Float32Array;
  const width = rows.length / inputs.length;
  return inputs.map((_, i) => rows.subarray(i * width, (i + 1) * width));
}

async function encoderSession(encoder: EncoderConfig, path: string, options: SessionOptions) {
  const checkpoint = await openCheckpoint(path);
  try {
    const graph = new Graph();
    const weights = new Weights(graph, checkpoint);
    const pixels = graph.input("pixels", "float32", ["images", 3, encoder.imageSize, encoder.imageSize]);
    const features = imageFeatures({ encoder: weights, qformer: weights, projection: weights }, pixels, { encoder });
    return await Session.create(graph, { features }, options);
  } finally {
    await checkpoint.close();
  }
}

async function hashOf(path: string): Promise<string> {
  const hash = createHash("sha256");
  await pipeline(createReadStream(path), hash);
  return hash.digest("hex");
}
