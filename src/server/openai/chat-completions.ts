/** `POST /v1/chat/completions`: a completion as one JSON object, or as a stream of server-sent events. */
import { randomUUID } from "node:crypto";
import { createRoute, type OpenAPIHono } from "@hono/zod-openapi";
import type { GenerationEvent } from "../../engine/engine.ts";
import type { FinishReason } from "../../generation/generate.ts";
import { errorResponses, shouldLog, toOpenAiError } from "../errors.ts";
import { checkImageCount } from "../images/request-images.ts";
import { generate, RequestAbort, type ServerContext, type ServerEnv } from "../server-context.ts";
import { parseChatRequest } from "./chat-request.ts";
import {
  type ChatChunk,
  chatChunk,
  chatCompletion,
  chatRequest,
  rejectUnsupported,
  type Usage,
} from "./chat-schema.ts";
import { eventStream, eventText } from "./event-stream.ts";
import { checkModel } from "./models.ts";

const route = createRoute({
  method: "post",
  path: "/v1/chat/completions",
  summary: "Complete a conversation about images",
  request: { body: { required: true, content: { "application/json": { schema: chatRequest } } } },
  responses: {
    200: {
      description: "The completion; with `stream`, events with its chunks, then `[DONE]`",
      content: { "application/json": { schema: chatCompletion }, "text/event-stream": { schema: chatChunk } },
    },
    ...errorResponses,
  },
});

export function addChatCompletions(app: OpenAPIHono<ServerEnv>, context: ServerContext): void {
  app.openapi(route, async (c) => {
    const request = c.req.valid("json");
    rejectUnsupported(request);
    checkModel(request.model, context);
    const parsed = parseChatRequest(request, context.engine.model);
    checkImageCount(parsed.images, context.images, "messages");
    const abort = new RequestAbort(context.timeoutSeconds, [c.get("disconnected"), context.abortSignal]);
    const events = generate(context, parsed, { client: c.get("client"), abort });
    const head = {
      id: `chatcmpl-${randomUUID()}`,
      created: Math.floor(Date.now() / 1000),
      model: context.engine.model.name,
    };
    if (!request.stream)
      return c.json({ ...head, object: "chat.completion" as const, ...(await collect(events)) }, 200);
    // Awaits the first event before the response starts, so that errors of the request still set the status.
    const first = await events.next();
    const chunks = toChunks(first.done ? [] : [first.value], events, request.stream_options?.include_usage ?? false);
    const texts = async function* () {
      try {
        for await (const chunk of chunks) {
          yield eventText({ ...head, object: "chat.completion.chunk", ...chunk } satisfies ChatChunk);
        }
        yield eventText("[DONE]");
      } catch (error) {
        if (shouldLog(error) && error !== abort.signal.reason) context.log.error({ err: error }, "A generation failed");
        yield eventText(toOpenAiError(error).body);
      }
    };
    const body = eventStream(texts(), {
      writeTimeoutSeconds: context.writeTimeoutSeconds,
      onAbandoned: (reason) => {
        abort.abort(reason);
        // Frees the slot even if nobody has started to read the events.
        void events.return().catch(() => {});
        c.env.outgoing.destroy();
      },
    });
    // The last header disables buffering in proxies.
    const headers = { "content-type": "text/event-stream", "cache-control": "no-cache", "x-accel-buffering": "no" };
    return new Response(body, { headers });
  });
}

/** Collects the events of all choices. */
async function collect(events: AsyncIterable<GenerationEvent>) {
  const usage = new UsageCounter();
  const texts: { text: string; readonly trimmed: TrimmedText; reason: FinishReason }[] = [];
  for await (const event of events) {
    usage.add(event);
    if (event.kind === "begin") continue;
    texts[event.choice] ??= { text: "", trimmed: new TrimmedText(), reason: "stop" };
    const choice = texts[event.choice];
    if (!choice) continue;
    if (event.kind === "text") choice.text += choice.trimmed.push(event.text);
    else choice.reason = event.reason;
  }
  const choices = texts.map(({ text, reason }, index) => ({
    index,
    message: { role: "assistant" as const, content: text, refusal: null },
    logprobs: null,
    finish_reason: reason,
  }));
  return { choices, usage: usage.total };
}

type ChunkBody = Pick<ChatChunk, "choices" | "usage">;

/** Converts events to chunks. Each choice has one with the role, then its text, then one with the finish reason. */
async function* toChunks(
  first: readonly GenerationEvent[],
  events: AsyncIterable<GenerationEvent>,
  includeUsage: boolean,
): AsyncGenerator<ChunkBody, void> {
  const usage = new UsageCounter();
  const trimmed = new Map<number, TrimmedText>();
  const chunk = (
    index: number,
    delta: ChatChunk["choices"][number]["delta"],
    reason: FinishReason | null = null,
  ): ChunkBody => ({
    choices: [{ index, delta, logprobs: null, finish_reason: reason }],
    usage: includeUsage ? null : undefined,
  });
  for await (const event of concat(first, events)) {
    usage.add(event);
    if (event.kind === "begin") continue;
    const { choice } = event;
    let text = trimmed.get(choice);
    if (!text) {
      text = new TrimmedText();
      trimmed.set(choice, text);
      yield chunk(choice, { role: "assistant", content: "" });
    }
    if (event.kind === "end") yield chunk(choice, {}, event.reason);
    else {
      const content = text.push(event.text);
      if (content !== "") yield chunk(choice, { content });
    }
  }
  if (includeUsage) yield { choices: [], usage: usage.total };
}

async function* concat<T>(first: readonly T[], rest: AsyncIterable<T>): AsyncGenerator<T, void> {
  yield* first;
  yield* rest;
}

/** Trims the white space around a streamed text, which models tend to generate. */
export class TrimmedText {
  private hasStarted = false;
  private pending = "";

  /** Returns the text that can be sent. White space is held back until more text follows. */
  push(text: string): string {
    const all = this.pending + (this.hasStarted ? text : text.trimStart());
    const ready = all.trimEnd();
    this.hasStarted ||= ready !== "";
    this.pending = this.hasStarted ? all.slice(ready.length) : "";
    return ready;
  }
}

/** Counts the tokens of a request from its events. */
class UsageCounter {
  private prompt = 0;
  private cached = 0;
  private completion = 0;

  add(event: GenerationEvent): void {
    if (event.kind === "begin") {
      this.prompt = event.promptTokens;
      this.cached = event.cachedTokens;
    } else if (event.kind === "end") {
      this.completion += event.tokens;
    }
  }

  get total(): Usage {
    return {
      prompt_tokens: this.prompt,
      completion_tokens: this.completion,
      total_tokens: this.prompt + this.completion,
      prompt_tokens_details: { cached_tokens: this.cached },
    };
  }
}
