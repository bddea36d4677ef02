/** A model behind the OpenAI-compatible server that serves the page. */
import type { PromptMessage } from "./backend.ts";
import { type Backend, BackendError, type ChatRequest, type GenerationEvent, type ModelInfo } from "./backend.ts";
import { getField, HttpError, readEvents, request, type ServerOptions } from "./http.ts";

export class ServerBackend implements Backend {
  readonly #server: ServerOptions;
  #model: string | undefined;

  constructor(server: ServerOptions = {}) {
    this.#server = server;
  }

  async info(signal?: AbortSignal): Promise<ModelInfo> {
    const response = await this.#request("v1/models", { signal: signal ?? null });
    const list: unknown = await response.json().catch(() => undefined);
    const data = getField(list, "data");
    const model = Array.isArray(data) ? data[0] : undefined;
    const name = getField(model, "id");
    if (typeof name !== "string") {
      throw new BackendError("failed", "GET v1/models returned no model: expected { data: [{ id }] }");
    }
    this.#model = name;
    return {
      name,
      contextLength: getNumber(model, "context_length"),
      tokensPerImage: getNumber(model, "tokens_per_image"),
    };
  }

  async *generate(chat: ChatRequest, signal: AbortSignal): AsyncGenerator<GenerationEvent, void> {
    const model = this.#model ?? (await this.info(signal)).name;
    const body = { model, stream: true, stream_options: { include_usage: true }, ...(await requestBody(chat)) };
    const response = await this.#request("v1/chat/completions", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body),
      signal,
    });
    let reason: "stop" | "length" | undefined;
    let tokens: number | undefined;
    try {
      for await (const { data } of readEvents(response)) {
        if (data === "[DONE]") break;
        const chunk = parseChunk(data);
        if (chunk.text) yield { kind: "text", text: chunk.text };
        reason = chunk.reason ?? reason;
        tokens = chunk.tokens ?? tokens;
      }
    } catch (error) {
      signal.throwIfAborted();
      if (error instanceof BackendError) throw error;
      throw new BackendError("broken", error instanceof Error ? error.message : String(error));
    }
    signal.throwIfAborted();
    if (!reason) throw new BackendError("broken", "The connection closed before the answer was complete");
    yield { kind: "end", reason, tokens };
  }

  #request(path: string, init: RequestInit): Promise<Response> {
    return request(path, init, this.#server).catch((error) => {
      throw error instanceof HttpError ? toBackendError(error) : error;
    });
  }
}

/** Encodes a blob as a data: URL. */
export async function dataUrl(blob: Blob): Promise<string> {
  const bytes = new Uint8Array(await blob.arrayBuffer());
  let binary = "";
  // In chunks: the number of arguments of one call is limited.
  for (let at = 0; at < bytes.length; at += 0x8000) binary += String.fromCharCode(...bytes.subarray(at, at + 0x8000));
  return `data:${blob.type || "application/octet-stream"};base64,${btoa(binary)}`;
}

/** The request in OpenAI's format. `num_beams` and `repetition_penalty` are extensions of this server. */
async function requestBody({ messages, system, options }: ChatRequest): Promise<Record<string, unknown>> {
  const prompt = await Promise.all(messages.map(toOpenAIMessage));
  return {
    messages: system === undefined ? prompt : [{ role: "system", content: system }, ...prompt],
    max_tokens: options.maxNewTokens,
    temperature: options.temperature,
    top_p: options.topP,
    num_beams: options.numBeams,
    repetition_penalty: options.repetitionPenalty,
    seed: options.seed,
  };
}

async function toOpenAIMessage({ role, text, images }: PromptMessage) {
  if (images.length === 0) return { role, content: text };
  const parts = await Promise.all(
    images.map(async (image) => ({ type: "image_url", image_url: { url: await dataUrl(image) } })),
  );
  return { role, content: text === "" ? parts : [...parts, { type: "text", text }] };
}

interface Chunk {
  readonly text?: string;
  readonly reason?: "stop" | "length";
  readonly tokens?: number;
}

/** Parses one event of the stream; fields it does not know are ignored. @throws BackendError */
function parseChunk(data: string): Chunk {
  let json: unknown;
  try {
    json = JSON.parse(data);
  } catch {
    throw new BackendError("broken", "The server sent invalid JSON");
  }
  const error = getField(json, "error");
  if (error) throw new BackendError("broken", String(getField(error, "message") ?? "The server reported an error"));
  const choices = getField(json, "choices");
  const choice = Array.isArray(choices) ? choices[0] : undefined;
  const text = getField(getField(choice, "delta"), "content");
  const reason = getField(choice, "finish_reason");
  return {
    text: typeof text === "string" ? text : undefined,
    reason: typeof reason === "string" ? (reason === "length" ? "length" : "stop") : undefined,
    tokens: getNumber(getField(json, "usage"), "completion_tokens"),
  };
}

function toBackendError({ status, message, body, retryAfter }: HttpError): BackendError {
  const kind = status === undefined ? "away" : problemKind(status, getField(body, "error"));
  return new BackendError(kind, message, retryAfter);
}

function problemKind(status: number, error: unknown): BackendError["kind"] {
  if (status === 401) return "key";
  if (status === 429) return "busy";
  if (status === 503) return "loading";
  if (status === 502) return "away";
  if (status === 400 || status === 413 || status === 422) {
    const subject = `${getField(error, "code") ?? ""} ${getField(error, "param") ?? ""}`;
    return /image|picture/i.test(subject) ? "image" : "question";
  }
  return "failed";
}

function getNumber(value: unknown, name: string): number | undefined {
  const number = getField(value, name);
  return typeof number === "number" ? number : undefined;
}
