/** What the worker runs: it loads the model that lies beside the page, and then answers what comes over its port. */

import { createPackedEngine } from "../../src/engine/packed-engine.ts";
import type { ToEngine } from "../../src/engine/port.ts";
import { servePort } from "../../src/engine/port.ts";
import { packedTokenizer } from "../../src/tokenizers/packed.ts";
import { choosePlace, type Place } from "./devices.ts";
import { forgetOthers, loadFiles, loadModelJson } from "./files.ts";
import { browserImages } from "./images.ts";
import { createOrtRunner } from "./ort-runner.ts";
import type { FromWorker, ToWorker } from "./protocol.ts";

const post = (message: FromWorker) => postMessage(message);
let listen: ((message: ToEngine) => void) | undefined;

addEventListener("message", ({ data }: MessageEvent<ToWorker>) => {
  if (data.kind === "load") load(data.url).catch((problem) => post({ kind: "unable", message: explain(problem) }));
  else listen?.(data);
});

async function load(url: string): Promise<void> {
  const model = await loadModelJson(url);
  const files = [model.tokenizer, ...model.weights];
  const total = files.reduce((sum, { bytes }) => sum + bytes, 0);
  const received = (bytes: number) => post({ kind: "progress", progress: { received: bytes, total } });
  const place = await choosePlace(model.precision);
  const vocabulary = await loadFiles(url, [model.tokenizer], received);
  const tokenizer = packedTokenizer(JSON.parse(new TextDecoder().decode(vocabulary)));
  const weights = await loadFiles(url, model.weights, (bytes) => received(vocabulary.length + bytes));
  received(total);
  const engine = await createPackedEngine(model, {
    tokenizer,
    weights,
    precision: place.precision,
    images: browserImages(),
    createRunner: (graph, outputs) => createOrtRunner(place.ort, place.providers, graph, outputs),
  });
  servePort(engine, {
    post,
    listen: (onMessage) => {
      listen = onMessage;
    },
  });
  const { device, threads }: Place = place;
  post({ kind: "ready", model: engine.model, device, threads });
  await forgetOthers(url, files);
}

/** The engine throws numbers where it has no memory left. */
function explain(problem: unknown): string {
  const message = problem instanceof Error ? problem.message : String(problem);
  const outOfMemory = problem instanceof RangeError || typeof problem === "number" || /memory|bad_alloc/i.test(message);
  return outOfMemory && !/enough memory/.test(message)
    ? `There is not enough memory for the model; close other tabs, or use a device with more. (${message})`
    : message;
}
