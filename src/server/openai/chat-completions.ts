/** `POST /v1/chat/completions`: an answer in one piece, or as a stream of events. */
import { randomUUID } from "node:crypto";
import { createRoute, type OpenAPIHono } from "@hono/zod-openapi";
import type { GenerationEvent } from "../../engine/engine.ts";
import type { FinishReason } from "../../generation/generate.ts";
import { errorResponses, shouldLog, toOpenAiError } from "../errors.ts";
import { checkImageCount } from "../images/request-images.ts";
import { ask, RequestAbort, type ServerContext, type ServerEnv } from "../server-context.ts";
import { toGenerationRequest } from "./chat-request.ts";
import {
  type ChatChunk,
  chatChunk,
  chatCompletion,
  chatRequest,
  refuseUnsupported,
  type Usage,
} from "./chat-schema.ts";
import { eventStream, eventText } from "./event-stream.ts";
import { checkModel } from "./models.ts";

// A stream of text without the white space around it, which models like to begin and end with.

export class TrimmedText {
  private begun = false;
  private held = "";

  /** The text that surely belongs to the answer; white space is held back until something follows it. */
  push(text: string): string {
    const all = this.held + (this.begun ? text : text.trimStart());
    const sure = all.trimEnd();
    this.begun ||= sure !== "";
    this.held = this.begun ? all.slice(sure.length) : "";
    return sure;
  }
}

const route = createRoute({
  method: "post",
  path: "/v1/chat/completions",
  summary: "Answer a conversation about images",
  request: { body: { required: true, content: { "application/json": { schema: chatRequest } } } },
  responses: {
    200: {
      description: "The answer; with `stream`, events that each hold a piece of it, and `[DONE]` at the end",
      content: { "application/json": { schema: chatCompletion }, "text/event-stream": { schema: chatChunk } },
    },
    ...errorResponses,
  },
});

export function addChatCompletions(app: OpenAPIHono<ServerEnv>, service: ServerContext): void {
  app.openapi(route, async (c) => {
    const request = c.req.valid("json");
    refuseUnsupported(request);
    checkModel(request.model, service);
    const question = toGenerationRequest(request, service.engine.model);
    checkImageCount(question.images, service.images, "messages");
    const end = new RequestAbort(service.timeoutSeconds, [c.get("gone"), service.ended]);
    const events = ask(service, c.get("client"), question, end);
    const head = {
      id: `chatcmpl-${randomUUID()}`,
      created: Math.floor(Date.now() / 1000),
      model: service.engine.model.name,
    };
    if (!request.stream)
      return c.json({ ...head, object: "chat.completion" as const, ...(await collect(events)) }, 200);
    // What is wrong with the question comes before the answer begins, and can still be told by the status.
    const begin = await events.next();
    const chunks = toChunks(begin.done ? [] : [begin.value], events, request.stream_options?.include_usage ?? false);
    const texts = async function* () {
      try {
        for await (const chunk of chunks) {
          yield eventText({ ...head, object: "chat.completion.chunk", ...chunk } satisfies ChatChunk);
        }
        yield eventText("[DONE]");
      } catch (error) {
        if (shouldLog(error) && error !== end.signal.reason) service.log.error({ err: error }, "An answer failed");
        yield eventText(toOpenAiError(error).body);
      }
    };
    const body = eventStream(texts(), {
      writeTimeoutSeconds: service.writeTimeoutSeconds,
      onAbandoned: (reason) => {
        end.abort(reason);
        // Nobody may have begun to read: the place is given back all the same.
        void events.return().catch(() => {});
        c.env.outgoing.destroy();
      },
    });
    // The last header asks proxies to pass events on as they come.
    const headers = { "content-type": "text/event-stream", "cache-control": "no-cache", "x-accel-buffering": "no" };
    return new Response(body, { headers });
  });
}

/** The whole answer. */
async function collect(events: AsyncIterable<GenerationEvent>) {
  const count = new UsageCount();
  const texts: { text: string; readonly trimmed: TrimmedText; reason: FinishReason }[] = [];
  for await (const event of events) {
    count.add(event);
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
  return { choices, usage: count.usage };
}

type ChunkBody = Pick<ChatChunk, "choices" | "usage">;

/** The answer in pieces: each choice has one that names the role, those of its text, and one with the reason of its end. */
async function* toChunks(
  first: readonly GenerationEvent[],
  events: AsyncIterable<GenerationEvent>,
  includeUsage: boolean,
): AsyncGenerator<ChunkBody, void> {
  const count = new UsageCount();
  const trimmed = new Map<number, TrimmedText>();
  const chunk = (
    index: number,
    delta: ChatChunk["choices"][number]["delta"],
    reason: FinishReason | null = null,
  ): ChunkBody => ({
    choices: [{ index, delta, logprobs: null, finish_reason: reason }],
    ...(includeUsage && { usage: null }),
  });
  for await (const event of concat(first, events)) {
    count.add(event);
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
  if (includeUsage) yield { choices: [], usage: count.usage };
}

async function* concat<T>(first: readonly T[], rest: AsyncIterable<T>): AsyncGenerator<T, void> {
  yield* first;
  yield* rest;
}

/** What an answer costs, from its events. */
class UsageCount {
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

  get usage(): Usage {
    return {
      prompt_tokens: this.prompt,
      completion_tokens: this.completion,
      total_tokens: this.prompt + this.completion,
      prompt_tokens_details: { cached_tokens: this.cached },
    };
  }
}
