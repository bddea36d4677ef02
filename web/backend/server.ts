/** A model behind the OpenAI-compatible server from which the page came. */
import { AskError, askServer, field, type ServerOptions } from "./ask.ts";
import {
  type AnswerRequest,
  type Backend,
  BackendError,
  type GenerationEvent,
  type ModelInfo,
  type Said,
} from "./backend.ts";
import { eventsOf } from "./events.ts";

export class ServerBackend implements Backend {
  readonly #server: ServerOptions;
  #model: string | undefined;

  constructor(server: ServerOptions = {}) {
    this.#server = server;
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

  async *answer(request: AnswerRequest, signal: AbortSignal): AsyncGenerator<GenerationEvent, void> {
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
    let reason: "stop" | "length" | undefined;
    let tokens: number | undefined;
    try {
      for await (const { data } of eventsOf(response)) {
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

  #ask(path: string, init: RequestInit): Promise<Response> {
    return askServer(path, init, this.#server).catch((problem) => {
      throw problem instanceof AskError ? backendError(problem) : problem;
    });
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

async function openAiMessage({ role, text, images }: Said) {
  if (images.length === 0) return { role, content: text };
  const parts = await Promise.all(
    images.map(async (image) => ({ type: "image_url", image_url: { url: await dataUrl(image) } })),
  );
  return { role, content: text === "" ? parts : [...parts, { type: "text", text }] };
}

/** The bytes of an image as a data: address. */
export async function dataUrl(blob: Blob): Promise<string> {
  const bytes = new Uint8Array(await blob.arrayBuffer());
  let binary = "";
  // In pieces, as a call takes only so many arguments.
  for (let at = 0; at < bytes.length; at += 0x8000) binary += String.fromCharCode(...bytes.subarray(at, at + 0x8000));
  return `data:${blob.type || "application/octet-stream"};base64,${btoa(binary)}`;
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

function backendError({ status, message, body, retryAfter }: AskError): BackendError {
  const kind = status === undefined ? "away" : kindOf(status, field(body, "error"));
  return new BackendError(kind, message, retryAfter);
}

function kindOf(status: number, error: unknown): BackendError["kind"] {
  if (status === 401) return "key";
  if (status === 429) return "busy";
  if (status === 503) return "loading";
  if (status === 502) return "away";
  if (status === 400 || status === 413 || status === 422) {
    const about = `${field(error, "code") ?? ""} ${field(error, "param") ?? ""}`;
    return /image|image/i.test(about) ? "image" : "question";
  }
  return "failed";
}

function numberField(value: unknown, name: string): number | undefined {
  const number = field(value, name);
  return typeof number === "number" ? number : undefined;
}
