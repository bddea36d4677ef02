/** A model behind the OpenAI-compatible server from which the page came. */
import { EventSourceParserStream } from "eventsource-parser/stream";
import {
  type AnswerEvent,
  type AnswerRequest,
  type Backend,
  BackendError,
  type ModelInfo,
  type Said,
} from "./backend.ts";

export interface ServerOptions {
  /** Where `v1/` lies; default the folder of the page. */
  readonly base?: string;
  /** The key to send, if there is one now. */
  readonly key?: () => string | undefined;
  readonly fetch?: typeof fetch;
}

export class ServerBackend implements Backend {
  readonly #base: string;
  readonly #key: () => string | undefined;
  readonly #fetch: typeof fetch;
  #model: string | undefined;

  constructor({ base = new URL(".", location.href).href, key = () => undefined, fetch: get }: ServerOptions = {}) {
    this.#base = base;
    this.#key = key;
    this.#fetch = get ?? ((...request) => fetch(...request));
  }

  async info(signal?: AbortSignal): Promise<ModelInfo> {
    const response = await this.#ask("v1/models", { signal: signal ?? null });
    const list: unknown = await response.json().catch(() => undefined);
    const data = field(list, "data");
    const model = Array.isArray(data) ? data[0] : undefined;
    const name = field(model, "id");
    if (typeof name !== "string") {
      throw new BackendError("failed", "The server's list of models is empty, or not in the form of OpenAI's");
    }
    this.#model = name;
    const contextLength = numberField(model, "context_length");
    const tokensPerImage = numberField(model, "tokens_per_image");
    return { name, ...(contextLength && { contextLength }), ...(tokensPerImage && { tokensPerImage }) };
  }

  async *answer(request: AnswerRequest, signal: AbortSignal): AsyncGenerator<AnswerEvent, void> {
    const model = this.#model ?? (await this.info(signal)).name;
    const response = await this.#ask("v1/chat/completions", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({
        model,
        stream: true,
        stream_options: { include_usage: true },
        ...(await bodyOf(request)),
      }),
      signal,
    });
    if (!response.body) throw new BackendError("broken", "The server sent no answer");
    let reason: "stop" | "length" | undefined;
    let tokens: number | undefined;
    try {
      for await (const data of eventData(response.body)) {
        if (data === "[DONE]") break;
        const chunk = parseChunk(data);
        if (chunk.problem) throw chunk.problem;
        if (chunk.text) yield { kind: "text", text: chunk.text };
        reason = chunk.reason ?? reason;
        tokens = chunk.tokens ?? tokens;
      }
    } catch (problem) {
      signal.throwIfAborted();
      if (problem instanceof BackendError) throw problem;
      throw new BackendError("broken", problem instanceof Error ? problem.message : String(problem));
    }
    signal.throwIfAborted();
    if (!reason) throw new BackendError("broken", "The connection ended before the answer did");
    yield { kind: "end", reason, ...(tokens !== undefined && { tokens }) };
  }

  /** The server's answer, if it is a good one. */
  async #ask(path: string, init: RequestInit): Promise<Response> {
    const headers = new Headers(init.headers);
    const key = this.#key();
    if (key) headers.set("authorization", `Bearer ${key}`);
    let response: Response;
    try {
      response = await this.#fetch(new URL(path, this.#base), { ...init, headers });
    } catch (problem) {
      init.signal?.throwIfAborted();
      throw new BackendError("away", problem instanceof Error ? problem.message : String(problem));
    }
    if (!response.ok) throw await refusal(response);
    return response;
  }
}

/** What the server was asked for, in OpenAI's form; `num_beams` and `repetition_penalty` are this server's own. */
async function bodyOf({ messages, system, decoding }: AnswerRequest): Promise<Record<string, unknown>> {
  const said = await Promise.all(messages.map(openAiMessage));
  return {
    messages: system === undefined ? said : [{ role: "system", content: system }, ...said],
    max_tokens: decoding.maxNewTokens,
    temperature: decoding.temperature,
    top_p: decoding.topP,
    num_beams: decoding.numBeams,
    repetition_penalty: decoding.repetitionPenalty,
    seed: decoding.seed,
  };
}

async function openAiMessage({ role, text, pictures }: Said) {
  if (pictures.length === 0) return { role, content: text };
  const images = await Promise.all(
    pictures.map(async (picture) => ({ type: "image_url", image_url: { url: await dataUrl(picture) } })),
  );
  return { role, content: text === "" ? images : [...images, { type: "text", text }] };
}

/** The bytes of a picture as a data: address. */
export async function dataUrl(blob: Blob): Promise<string> {
  const bytes = new Uint8Array(await blob.arrayBuffer());
  let binary = "";
  // In pieces, as a call takes only so many arguments.
  for (let at = 0; at < bytes.length; at += 0x8000) binary += String.fromCharCode(...bytes.subarray(at, at + 0x8000));
  return `data:${blob.type || "application/octet-stream"};base64,${btoa(binary)}`;
}

/** The data of each event of a stream. */
async function* eventData(body: ReadableStream<Uint8Array>): AsyncGenerator<string, void> {
  const reader = body
    .pipeThrough(new TextDecoderStream() as ReadableWritablePair<string, Uint8Array>)
    .pipeThrough(new EventSourceParserStream())
    .getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield value.data;
    }
  } finally {
    await reader.cancel().catch(() => {});
  }
}

interface Chunk {
  readonly text?: string;
  readonly reason?: "stop" | "length";
  readonly tokens?: number;
  readonly problem?: BackendError;
}

/** What one event of the stream says; an event in another form says nothing. */
function parseChunk(data: string): Chunk {
  let json: unknown;
  try {
    json = JSON.parse(data);
  } catch {
    throw new BackendError("broken", "The server sent something that is not JSON");
  }
  const error = field(json, "error");
  if (error) return { problem: new BackendError("broken", String(field(error, "message") ?? "The server broke off")) };
  const choices = field(json, "choices");
  const choice = Array.isArray(choices) ? choices[0] : undefined;
  const text = field(field(choice, "delta"), "content");
  const reason = field(choice, "finish_reason");
  const tokens = numberField(field(json, "usage"), "completion_tokens");
  return {
    ...(typeof text === "string" && { text }),
    ...(typeof reason === "string" && { reason: reason === "length" ? "length" : "stop" }),
    ...(tokens !== undefined && { tokens }),
  };
}

/** Why the server refused, from its status and its words. */
async function refusal(response: Response): Promise<BackendError> {
  const text = await response.text().catch(() => "");
  let error: unknown;
  try {
    error = field(JSON.parse(text), "error");
  } catch {
    error = undefined;
  }
  const message = field(error, "message");
  const says = typeof message === "string" ? message : `The server answered ${response.status} ${response.statusText}`;
  return new BackendError(kindOf(response.status, error), says, seconds(response.headers.get("retry-after")));
}

function kindOf(status: number, error: unknown): BackendError["kind"] {
  if (status === 401) return "key";
  if (status === 429) return "busy";
  if (status === 503) return "loading";
  if (status === 502) return "away";
  if (status === 400 || status === 413 || status === 422) {
    const about = `${field(error, "code") ?? ""} ${field(error, "param") ?? ""}`;
    return /image|picture/i.test(about) ? "picture" : "question";
  }
  return "failed";
}

/** Seconds to wait, from a `retry-after` header in either form. */
function seconds(header: string | null): number | undefined {
  if (header === null || header === "") return undefined;
  const number = Number(header);
  if (Number.isFinite(number)) return Math.max(0, number);
  const date = Date.parse(header);
  return Number.isNaN(date) ? undefined : Math.max(0, (date - Date.now()) / 1000);
}

function field(value: unknown, name: string): unknown {
  return typeof value === "object" && value !== null ? (value as Record<string, unknown>)[name] : undefined;
}

function numberField(value: unknown, name: string): number | undefined {
  const number = field(value, name);
  return typeof number === "number" ? number : undefined;
}
