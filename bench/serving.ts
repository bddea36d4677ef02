/** The server under load on loopback: several chats at once, each of three questions about an image, again and again. */
import { type ChildProcess, spawn } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import OpenAI from "openai";

const root = join(import.meta.dirname, "..");
const questions = ["What is in the image?", "What else can be seen?", "Tell a short story about it."];
const maxTokens = 64;
/** How often `/health` is asked, and memory is looked at, in milliseconds. */
const [healthEvery, memoryEvery] = [100, 5000];

export interface Serving {
  readonly chats: number;
  /** Tokens of all answers together in a second. */
  readonly tokensPerSecond: number;
  readonly answers: number;
  /** The messages of what failed. */
  readonly failures: readonly string[];
  /** Milliseconds from a question to the first text of its answer. */
  readonly firstTurn: Spread;
  readonly laterTurns: Spread;
  /** Milliseconds that `/health` took. */
  readonly health: Spread;
  /** Resident memory of the engine's process in bytes: after a fifth of the time, and at the end. */
  readonly memory: { readonly before: number; readonly after: number };
}

export interface Spread {
  readonly median: number;
  readonly p95: number;
  readonly greatest: number;
}

/** Each number of chats for so many seconds. */
export async function benchServing(
  model: string,
  quantization: string,
  chats: readonly number[],
  seconds: number,
  onResult: (result: Serving) => void,
): Promise<void> {
  const most = `${Math.max(...chats)}`;
  const { server, url } = await start(["--model", model, "--quantization", quantization, "--max-concurrent", most]);
  try {
    // The first run of each shape is slower, and not what is measured.
    await load(url, 1, 2);
    for (const count of chats) onResult(await load(url, count, seconds));
  } finally {
    server.kill("SIGTERM");
    await new Promise((resolve) => server.once("exit", resolve));
  }
}

async function load(url: string, chats: number, seconds: number): Promise<Serving> {
  const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0 });
  const [model] = (await client.models.list()).data;
  const images = exampleImages();
  const [firstTurn, laterTurns, health, memory]: [number[], number[], number[], number[]] = [[], [], [], []];
  let [tokens, answers] = [0, 0];
  const failures: string[] = [];
  const started = performance.now();
  const isOver = () => performance.now() - started > seconds * 1000;

  async function chat(number: number): Promise<void> {
    for (let round = 0; !isOver(); round++) {
      const image = newImage(images[(number + round) % images.length] as Buffer);
      const messages: OpenAI.ChatCompletionMessageParam[] = [];
      for (const [turn, text] of questions.entries()) {
        if (isOver()) return;
        const part = { type: "image_url" as const, image_url: { url: image } };
        messages.push({ role: "user", content: turn === 0 ? [part, { type: "text", text }] : text });
        try {
          const answer = await ask(client, model?.id ?? "", messages, number + round);
          messages.push({ role: "assistant", content: answer.text });
          (turn === 0 ? firstTurn : laterTurns).push(answer.firstMs);
          tokens += answer.tokens;
          answers++;
        } catch (error) {
          failures.push((error as Error).message);
        }
      }
    }
  }

  async function watch(every: number, look: () => Promise<void>): Promise<void> {
    while (!isOver()) {
      await look();
      await new Promise((resolve) => setTimeout(resolve, every));
    }
  }

  await Promise.all([
    ...Array.from({ length: chats }, (_, number) => chat(number)),
    watch(healthEvery, async () => {
      const asked = performance.now();
      await (await fetch(`${url}/health`)).text();
      health.push(performance.now() - asked);
    }),
    watch(memoryEvery, async () => {
      const text = await (await fetch(`${url}/metrics`)).text();
      memory.push(Number(/^minigpt4_engine_resident_memory_bytes (\S+)/m.exec(text)?.[1]));
    }),
  ]);
  const took = (performance.now() - started) / 1000;
  const early = memory[Math.floor(memory.length / 5)] ?? Number.NaN;
  return {
    chats,
    tokensPerSecond: tokens / took,
    answers,
    failures,
    firstTurn: spread(firstTurn),
    laterTurns: spread(laterTurns),
    health: spread(health),
    memory: { before: early, after: memory.at(-1) ?? Number.NaN },
  };
}

async function ask(client: OpenAI, model: string, messages: OpenAI.ChatCompletionMessageParam[], seed: number) {
  const asked = performance.now();
  const stream = await client.chat.completions.create({
    model,
    messages,
    stream: true,
    max_tokens: maxTokens,
    temperature: 1,
    seed,
    stream_options: { include_usage: true },
  });
  let [text, firstMs, tokens] = ["", 0, 0];
  for await (const { choices, usage } of stream) {
    const piece = choices[0]?.delta.content ?? "";
    if (piece !== "" && firstMs === 0) firstMs = performance.now() - asked;
    text += piece;
    tokens = usage?.completion_tokens ?? tokens;
  }
  return { text, tokens, firstMs: firstMs || performance.now() - asked };
}

function exampleImages(): Buffer[] {
  const folder = join(root, "examples", "images");
  const names = readdirSync(folder).filter((name) => name.endsWith(".jpg"));
  return names.map((name) => readFileSync(join(folder, name)));
}

let made = 0;

/** As a data URL. What follows the end of a JPEG is no part of the image, but makes it one that the server has not seen. */
function newImage(image: Buffer): string {
  return `data:image/jpeg;base64,${Buffer.concat([image, Buffer.from(`${Date.now()}-${made++}`)]).toString("base64")}`;
}

function spread(values: readonly number[]): Spread {
  const sorted = values.toSorted((a, b) => a - b);
  const at = (share: number) => sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? Number.NaN;
  return { median: at(0.5), p95: at(0.95), greatest: at(1) };
}

/** The built server, on a free port. */
async function start(flags: readonly string[]): Promise<{ server: ChildProcess; url: string }> {
  const main = join(root, "dist", "cli", "main.js");
  const server = spawn(process.execPath, [main, "serve", "--port", "0", "--quiet", ...flags], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  let printed = "";
  for await (const chunk of server.stdout ?? []) {
    printed += chunk;
    const url = /http:\/\/[\w.:[\]]+/.exec(printed)?.[0];
    if (url) return { server, url };
  }
  throw new Error(`The server ended before it answered: ${printed}`);
}
