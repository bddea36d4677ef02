/** A server that really listens, with the tiny model: what the tests of the server begin with. */
import { readFileSync } from "node:fs";
import OpenAI from "openai";
import { afterAll, afterEach } from "vitest";
import type { Engine, GenerationEvent, GenerationRequest } from "../../src/engine/engine.ts";
import { loadEngine } from "../../src/engine/load-engine.ts";
import type { LocalEngine } from "../../src/engine/local-engine.ts";
import { type RunningServer, type ServerOptions, startServer } from "../../src/server/serve.ts";
import { image } from "./cli-command.ts";
import { temporaryFolder, tinyModel } from "./tiny-model.ts";

/** The engine of a test file, which is released after its tests. */
export async function tinyEngine(): Promise<LocalEngine> {
  const engine = await loadEngine(tinyModel(temporaryFolder()), "tiny");
  afterAll(() => engine.close());
  return engine;
}

const running: RunningServer[] = [];
afterEach(async () => {
  for (const server of running.splice(0)) await server.close(0);
});

/** Starts a server, which is stopped after the test. */
export async function serve(engine: Engine, options: Partial<ServerOptions> = {}): Promise<RunningServer> {
  const server = await startServer({ port: 0, ...options, engine });
  running.push(server);
  return server;
}

/** OpenAI's own client, which by default does not ask again by itself. */
export function clientOf({ url }: RunningServer, options: { apiKey?: string; maxRetries?: number } = {}): OpenAI {
  return new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0, ...options });
}

export function post(url: string, body: unknown, headers: Readonly<Record<string, string>> = {}): Promise<Response> {
  const text = typeof body === "string" ? body : JSON.stringify(body);
  return fetch(url, { method: "POST", body: text, headers: { "content-type": "application/json", ...headers } });
}

/** An example image as a data URL. */
export function dataUrl(name: string): string {
  return `data:image/jpeg;base64,${readFileSync(image(name)).toString("base64")}`;
}

/** The content of a user's message with an image. */
export function shown(name: string, text?: string): OpenAI.ChatCompletionContentPart[] {
  return [
    { type: "image_url", image_url: { url: dataUrl(name) } },
    ...(text === undefined ? [] : [{ type: "text" as const, text }]),
  ];
}

/** The real engine, watched: how many texts it has written, and held at a gate where a test wants that. */
export class WatchedEngine implements Engine {
  texts = 0;
  running = 0;
  most = 0;
  readonly questions: GenerationRequest[] = [];
  private readonly engine: Engine;
  private gate: Promise<void> = Promise.resolve();
  private openGate: () => void = () => {};

  constructor(engine: Engine) {
    this.engine = engine;
  }

  get model(): Engine["model"] {
    return this.engine.model;
  }

  /** Answers stand still before their next text until `open` is called. */
  shut(): void {
    this.gate = new Promise((resolve) => {
      this.openGate = resolve;
    });
  }

  open(): void {
    this.openGate();
  }

  async *generate(question: GenerationRequest, signal?: AbortSignal): AsyncGenerator<GenerationEvent, void> {
    this.questions.push(question);
    this.running++;
    this.most = Math.max(this.most, this.running);
    const gone = new Promise<void>((resolve) => signal?.addEventListener("abort", () => resolve(), { once: true }));
    try {
      for await (const event of this.engine.generate(question, signal)) {
        if (event.kind === "text") {
          await Promise.race([this.gate, gone]);
          this.texts++;
        }
        yield event;
      }
    } finally {
      this.running--;
    }
  }

  embed(...inputs: Parameters<Engine["embed"]>): Promise<Float32Array[]> {
    return this.engine.embed(...inputs);
  }

  close(): Promise<void> {
    return this.engine.close();
  }
}

/** Waits until something is so, and fails if that takes too long. */
export async function until(isSo: () => boolean | Promise<boolean>, milliseconds = 5000): Promise<void> {
  const end = performance.now() + milliseconds;
  while (!(await isSo())) {
    if (performance.now() > end) throw new Error(`Still not so after ${milliseconds} ms: ${isSo}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/** A number of the server's metrics. */
export async function metric({ url }: RunningServer, name: string): Promise<number> {
  const text = await (await fetch(`${url}/metrics`)).text();
  const line = text.split("\n").find((one) => one.startsWith(`minigpt4_${name} `));
  return Number(line?.split(" ").at(-1));
}
