/**
 * Benchmarks as ratios to a peer on the same machine: `npm run bench [-- decoding training stage1 data serving] [--json]`.
 *
 *     decoding, training, stage1, data    against llama.cpp and PyTorch; all of them by default
 *     serving       five minutes per number of chats (--seconds); run `npm run build` first. --model quarter is a MiniGPT-4 7B of a quarter of the size
 *     encoder, 7b   full size, only when named (9 GB of memory, 4 GB of disk); 7b --model FOLDER takes an imported model folder
 *     perplexity    --text FILE: what quantization costs SmolLM2
 *     profile       --model FOLDER: time per operator
 *
 * Set MINIGPT4_PYTHON to a Python interpreter with torch (default: python3).
 */
import { execFileSync, spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdir, readFile, rename } from "node:fs/promises";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { modelPath } from "../src/chat/models.ts";
import { cacheFolder } from "../src/files/cache-folder.ts";
import { pull } from "../src/hub/pull.ts";
import type { LlamaConfig } from "../src/models/llama.ts";
import { withLargePages } from "../src/runtime/environment.ts";
import { benchDataShare } from "./data-share.ts";
import { benchDecoding, type DecodingTask } from "./decoding.ts";
import { benchEncoder } from "./encoder.ts";
import { measureLimits } from "./limits.ts";
import type { Contest } from "./paired.ts";
import { benchPerplexity } from "./perplexity.ts";
import { benchProfile } from "./profile.ts";
import { quarterModel } from "./quarter-model.ts";
import { tinyLlama, vicuna7b, writeRandomLlama } from "./random-llama.ts";
import { benchServing, type Spread } from "./serving.ts";
import { benchStage1 } from "./stage1.ts";
import { proportions } from "./stage1-shapes.ts";
import { benchTraining } from "./training.ts";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    json: { type: "boolean", default: false },
    threads: { type: "string", default: "2" },
    rounds: { type: "string", default: "7" },
    gguf: { type: "string" },
    model: { type: "string", default: "nano" },
    quantization: { type: "string", default: "float32" },
    chats: { type: "string", default: "1,4,16" },
    seconds: { type: "string", default: "300" },
    text: { type: "string" },
    /** Context lengths of `7b`. */
    positions: { type: "string", default: "256,1000" },
  },
});
const threads = Number(values.threads);
const rounds = Number(values.rounds);
const chosen = (name: string) => positionals.length === 0 || positionals.includes(name);
const smollm2 = async () => values.gguf ?? (await pull("smollm2-135m-instruct"));

if (chosen("decoding")) {
  installPeer();
  await decoding("SmolLM2-135M Q4_1", { path: await smollm2(), quantization: "int4" });
  const path = await randomLlama("1.1b", tinyLlama);
  await decoding("random 1.1B LLaMA Q4_0", { path, quantization: "int4" });
  await decoding("random 1.1B LLaMA Q4_0 in blocks of 128", { path, quantization: { bits: 4, blockSize: 128 } });
}

if (positionals.includes("7b")) {
  installPeer();
  const path = await randomLlama("7b", vicuna7b);
  const folder = values.model === "nano" ? undefined : join(values.model, "llm");
  for (const context of values.positions.split(",").map(Number)) {
    if (folder) await decoding("random 7B as imported", { path, folder, quantization: "native", context });
    else await decoding("random 7B LLaMA Q4_0", { path, quantization: "int4", context });
  }
}

if (positionals.includes("encoder")) {
  for (const { quantization, images, time, similarity, peakBytes } of await benchEncoder(threads, rounds)) {
    const gigabytes = (bytes: number) => (bytes / 1e9).toFixed(1);
    report(
      `ViT-g and Q-Former in ${quantization}, batch of ${images}`,
      time,
      `${time.ours.toFixed(0)} ms, PyTorch in float32 ${time.theirs.toFixed(0)} ms; cosine similarity ${similarity.toFixed(5)}; ` +
        `peak memory ${gigabytes(peakBytes.ours)} GB, PyTorch ${gigabytes(peakBytes.theirs)} GB`,
    );
  }
}

if (positionals.includes("perplexity")) {
  if (!values.text) throw new Error("perplexity needs a text: pass --text FILE");
  let exact: number | undefined;
  await benchPerplexity(await smollm2(), await readFile(values.text, "utf8"), { threads, device: "cpu" }, (result) => {
    if (values.json) return console.log(JSON.stringify(result));
    exact ??= result.loss;
    const increase = (result.loss - exact).toFixed(4);
    console.log(
      `${result.name}: perplexity ${result.perplexity.toFixed(3)} (loss ${result.loss.toFixed(4)}, ${increase} above float32; ${result.tokens} tokens)`,
    );
  });
}

if (positionals.includes("profile")) {
  // Large pages, as in the engine's process: they are set when a process starts.
  const own = withLargePages(process.env);
  if (own !== process.env) {
    const args = [...process.execArgv, ...process.argv.slice(1)];
    process.exit(spawnSync(process.execPath, args, { env: own, stdio: "inherit" }).status ?? 1);
  }
  const limits = await measureLimits(threads);
  const profiles = await benchProfile(modelPath(values.model), threads, Number.parseInt(values.positions, 10));
  if (values.json) console.log(JSON.stringify({ limits, profiles }));
  else {
    const {
      bytesPerSecond,
      operationsPerSecond: { float32, int8 },
    } = limits;
    const giga = (count: number) => (count / 1e9).toFixed(0);
    console.log(
      `limits of this machine: memory ${giga(bytesPerSecond)} GB/s; matmul ${giga(float32)} GFLOP/s in float32, ${giga(int8)} in int8`,
    );
    for (const { part, milliseconds, operators } of profiles) {
      console.log(`${part}: ${milliseconds.toFixed(1)} ms`);
      for (const { operator, milliseconds: own, operations } of operators.slice(0, 10)) {
        const speed = operations > 0 ? `, ${(operations / own / 1e6).toFixed(0)} GFLOP/s` : "";
        console.log(
          `  ${((100 * own) / milliseconds).toFixed(1).padStart(5)}%  ${own.toFixed(2)} ms  ${operator}${speed}`,
        );
      }
    }
  }
}

if (chosen("training")) {
  const { step, operations } = await benchTraining(await smollm2(), threads, rounds);
  report("training step in float32, frozen SmolLM2-135M", step, speeds(step, { ours: operations, theirs: operations }));
}

if (chosen("stage1")) {
  if (!values.json) console.log(proportions());
  for (const { name, step, operations, peakBytes } of await benchStage1(threads, rounds)) {
    const gigabytes = (bytes: number) => (bytes / 1e9).toFixed(1);
    const memory = `peak memory ${gigabytes(peakBytes.ours)} GB, PyTorch ${gigabytes(peakBytes.theirs)} GB`;
    report(
      `stage 1 step of MiniGPT-4 at a quarter of its size, ${name}`,
      step,
      `${speeds(step, operations)}; ${memory}`,
    );
  }
}

if (chosen("data")) {
  for (const { name, images, seconds, dataSeconds } of await benchDataShare(threads)) {
    const share = dataSeconds / seconds;
    const what = `time waiting for images of web shards without a cache, ${name}`;
    const explanation = `${dataSeconds.toFixed(2)} s of ${seconds.toFixed(1)} s, ${images} images per step`;
    if (values.json) console.log(JSON.stringify({ name: what, share, explanation }));
    else console.log(`${what}: ${(100 * share).toFixed(1)}% of a step (${explanation})`);
  }
}

if (chosen("serving")) {
  const { quantization } = values;
  const model = values.model === "quarter" ? await quarterModel() : values.model;
  const chats = values.chats.split(",").map(Number);
  let alone: number | undefined;
  await benchServing(model, quantization, chats, Number(values.seconds), (result) => {
    if (values.json) return console.log(JSON.stringify(result));
    alone ??= result.tokensPerSecond;
    const { firstTurn, laterTurns, health, memory } = result;
    console.log(`serving ${values.model} in ${quantization} to ${result.chats} concurrent chats: ${(result.tokensPerSecond / alone).toFixed(2)} x the throughput of the first line
  ${result.tokensPerSecond.toFixed(0)} tokens/s in ${result.answers} answers, ${result.failures.length} failed ${[...new Set(result.failures)].join("; ")}
  time to first token (median, p95, max) ${milliseconds(firstTurn)} in the first turn, ${milliseconds(laterTurns)} later
  /health within ${milliseconds(health)}; memory ${(memory.before / 1e6).toFixed(0)} -> ${(memory.after / 1e6).toFixed(0)} MB`);
  });
}

function milliseconds({ median, p95, greatest }: Spread): string {
  return `${median.toFixed(0)}, ${p95.toFixed(0)}, ${greatest.toFixed(0)} ms`;
}

/** Time and throughput of both sides. */
function speeds(step: Contest, operations: { readonly ours: number; readonly theirs: number }): string {
  const [ours, theirs] = (["ours", "theirs"] as const).map(
    (side) => `${step[side].toFixed(0)} ms, ${(operations[side] / step[side] / 1e6).toFixed(0)} GFLOP/s`,
  );
  return `${ours}; PyTorch ${theirs}`;
}

function report(name: string, contest: { ratio: number }, explanation: string): void {
  if (values.json) console.log(JSON.stringify({ name, ...contest, explanation }));
  else console.log(`${name}: ${contest.ratio.toFixed(2)} x (${explanation})`);
}

function perSecond(milliseconds: number): string {
  return (1000 / milliseconds).toFixed(1);
}

/** node-llama-cpp is large and only needed here, so it is installed on demand. */
function installPeer(): void {
  const folder = import.meta.dirname;
  if (existsSync(join(folder, "node_modules", "node-llama-cpp"))) return;
  execFileSync("npm", ["ci", "--prefix", folder, "--ignore-scripts"], { stdio: "inherit" });
}

async function decoding(
  name: string,
  { context = 256, ...task }: Pick<DecodingTask, "path" | "folder" | "quantization"> & { context?: number },
): Promise<void> {
  const { token, prefill, weightBytes } = await benchDecoding({ ...task, context, threads, rounds });
  const gigabytes = (weightBytes / token.ours / 1e6).toFixed(1);
  report(
    `decoding at context length ${context}, ${name}`,
    token,
    `${perSecond(token.ours)} tokens/s, llama.cpp ${perSecond(token.theirs)}; reads ${gigabytes} GB/s of weights`,
  );
  report(
    `prefill of ${context} tokens, ${name}`,
    prefill,
    `${prefill.ours.toFixed(0)} ms, llama.cpp ${prefill.theirs.toFixed(0)} ms`,
  );
}

async function randomLlama(size: string, config: LlamaConfig): Promise<string> {
  const path = join(cacheFolder(), "bench", `random-${size}-q4_0.gguf`);
  if (existsSync(path)) return path;
  await mkdir(join(cacheFolder(), "bench"), { recursive: true });
  await writeRandomLlama(`${path}.partial`, config);
  await rename(`${path}.partial`, path);
  return path;
}
