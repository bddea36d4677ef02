/** What a language model would say next in each place of a picture's texts, after it has read the picture's other texts. */
import { openSafetensors, writeSafetensors } from "../checkpoints/safetensors.ts";
import { featureKey } from "../data/feature-store.ts";
import { embedTokens, llama, logits } from "../models/llama.ts";
import type { OpenLlama } from "../models/open-llama.ts";
import { Weights } from "../nn/weights.ts";
import { ndarray } from "../tensor/array.ts";
import { Graph, type Value } from "../tensor/graph.ts";
import { reshape } from "../tensor/layout.ts";
import { gather } from "../tensor/lookup.ts";
import { softmax } from "../tensor/reduce.ts";
import { Session, type SessionOptions } from "../tensor/session.ts";
import { batchArrays, targetsOf } from "./batch.ts";

/** Tokens that are kept of each prediction, and the smallest probability that is. */
const alternatives = 32;
const least = 5e-4;

type Tokens = readonly number[];

/** The likeliest tokens for one place, and their probabilities. */
export interface Prediction {
  readonly ids: readonly number[];
  readonly probabilities: readonly number[];
}

/** By the text, one prediction for each of its tokens and one for its end. */
export type Lessons = ReadonlyMap<Tokens, readonly Prediction[]>;

/** What is read: `before` once, then each text between `lead` and `end`. */
export interface ReadingForm {
  readonly before: Tokens;
  readonly lead: Tokens;
  readonly end: Tokens;
}

export interface LessonOptions extends SessionOptions {
  readonly form: ReadingForm;
  /** Where the lessons are kept; computed only if they are not there. */
  readonly path: string;
  readonly onProgress?: (done: number, total: number) => void;
  readonly signal?: AbortSignal;
}

/**
 * Lessons from all texts of pictures that have several.
 *
 * @param pictures the texts of each picture, in tokens
 */
export async function openLessons(
  llm: OpenLlama,
  pictures: readonly (readonly Tokens[])[],
  { form, path, onProgress, signal, ...engine }: LessonOptions,
): Promise<Lessons> {
  const several = pictures.filter(({ length }) => length > 1);
  const texts = several.flat();
  const key = featureKey([llm.checkpoint.path, JSON.stringify([form, alternatives, least, several])]);
  const kept = await read(path, key);
  if (kept) return lessonsOf(texts, kept);
  const session = await readerSession(llm, engine);
  const predictions: Prediction[] = [];
  try {
    for (const [i, own] of several.entries()) {
      signal?.throwIfAborted();
      const samples = own.map((text, which) => ({
        image: 0,
        prompt: [{ ids: contextOf(own, which, form, llm.config.maxPositionEmbeddings) }],
        answers: [targetsOf([...text, ...form.end.slice(0, 1)])],
      }));
      const { probabilities } = await session.run(batchArrays(samples, 0));
      predictions.push(...likeliest(probabilities.data as Float32Array, llm.config.vocabSize));
      onProgress?.(i + 1, several.length);
    }
  } finally {
    await session.release();
  }
  await write(path, key, predictions);
  return lessonsOf(texts, predictions);
}

function lessonsOf(texts: readonly Tokens[], predictions: readonly Prediction[]): Lessons {
  let start = 0;
  return new Map(
    texts.map((text) => {
      const end = start + text.length + 1;
      const own = predictions.slice(start, end);
      start = end;
      return [text, own];
    }),
  );
}

/** The other texts, beginning with the one that follows, as many as the model has positions for, and the words before the own one. */
function contextOf(
  texts: readonly Tokens[],
  which: number,
  { before, lead, end }: ReadingForm,
  positions: number,
): number[] {
  const own = texts[which] ?? [];
  const context = [...before];
  for (const text of [...texts.slice(which + 1), ...texts.slice(0, which)]) {
    const next = [...lead, ...text, ...end];
    if (context.length + next.length + lead.length + own.length + 1 > positions) break;
    context.push(...next);
  }
  return [...context, ...lead];
}

/** Probabilities of the next token at each target, [targets, vocabSize]. */
function readerSession({ checkpoint, config }: OpenLlama, options: SessionOptions): Promise<Session<"probabilities">> {
  const graph = new Graph();
  const w = new Weights(graph, checkpoint);
  const indices = (name: string, ...shape: string[]): Value => graph.input(name, "int64", shape);
  const mask = graph.input("mask", "float32", ["batch", 1, "sequence", "sequence"]);
  const embeddings = embedTokens(w, indices("ids", "batch", "sequence"), config);
  const { hidden } = llama(w, embeddings, indices("positions", "batch", "sequence"), config, undefined, mask);
  const rows = reshape(hidden, ["batch*sequence", config.hiddenSize]);
  const predicting = gather(rows, indices("targetPlaces", "targets"));
  return Session.create(graph, { probabilities: softmax(logits(w, predicting, config)) }, options);
}

/** The likeliest tokens of each row. */
function likeliest(probabilities: Float32Array, vocabSize: number): Prediction[] {
  return Array.from({ length: probabilities.length / vocabSize }, (_, i) => {
    const row = probabilities.subarray(i * vocabSize, (i + 1) * vocabSize);
    const ids: number[] = [];
    for (let id = 0; id < vocabSize; id++) if ((row[id] as number) > least) ids.push(id);
    ids.sort((a, b) => (row[b] as number) - (row[a] as number)).splice(alternatives);
    return { ids, probabilities: ids.map((id) => row[id] as number) };
  });
}

/** What a file holds under this key. Places that are left over have probability 0. */
async function read(path: string, key: string): Promise<Prediction[] | undefined> {
  const file = await openSafetensors(path).catch(() => undefined);
  try {
    if (!file || file.metadata.key !== key) return undefined;
    const ids = await file.readFloat32("ids");
    const probabilities = await file.readFloat32("probabilities");
    return Array.from({ length: ids.length / alternatives }, (_, i) => {
      const all = [...probabilities.subarray(i * alternatives, (i + 1) * alternatives)];
      const count = all.filter((probability) => probability > 0).length;
      const start = i * alternatives;
      return { ids: [...ids.subarray(start, start + count)], probabilities: all.slice(0, count) };
    });
  } finally {
    await file?.close();
  }
}

async function write(path: string, key: string, predictions: readonly Prediction[]): Promise<void> {
  const shape = [predictions.length, alternatives];
  const ids = new Float32Array(predictions.length * alternatives);
  const probabilities = new Float32Array(ids.length);
  predictions.forEach((prediction, i) => {
    ids.set(prediction.ids, i * alternatives);
    probabilities.set(prediction.probabilities, i * alternatives);
  });
  // float32 holds ids below 2^24 exactly.
  const arrays = { ids: ndarray("float32", shape, ids), probabilities: ndarray("float32", shape, probabilities) };
  await writeSafetensors(path, arrays, { key });
}
