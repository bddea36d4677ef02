/** A chat service on loopback that behaves as badly as a test wants. */
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { onTestFinished } from "vitest";

export interface Asked {
  /** The paragraph. */
  readonly text: string;
  /** How often it was asked for, with this time. */
  readonly times: number;
  /** How many requests came before this one. */
  readonly before: number;
  readonly body: Readonly<Record<string, unknown>>;
  readonly headers: IncomingMessage["headers"];
}

export interface Reply {
  readonly status?: number;
  readonly headers?: Readonly<Record<string, string>>;
  /** Text is sent as it is, anything else as JSON. */
  readonly body?: unknown;
  /** Milliseconds before the answer. */
  readonly after?: number;
  /** Milliseconds between the answer's first half and its second. */
  readonly halfway?: number;
  /** The connection is cut instead, or after half of the answer. */
  readonly cut?: "at once" | "halfway";
}

/** An answer as OpenAI's API gives it. */
export function said(content: string | null, more: { finish?: string; usage?: unknown; message?: object } = {}): Reply {
  const usage = "usage" in more ? more.usage : { prompt_tokens: 100, completion_tokens: 10, total_tokens: 110 };
  const message = { role: "assistant", content, ...more.message };
  return { body: { choices: [{ index: 0, message, finish_reason: more.finish ?? "stop" }], usage } };
}

/** What a good service makes of a text. */
export const polished = (text: string) => `${text}, polished`;

export class ChatServer {
  readonly asked: Asked[] = [];
  url = "";
  /** Requests at once, and the most of them. */
  running = 0;
  most = 0;
  models: unknown = { data: [{ id: "only" }] };
  private readonly reply: (asked: Asked) => Reply | Promise<Reply>;

  private constructor(reply: (asked: Asked) => Reply | Promise<Reply>) {
    this.reply = reply;
  }

  /** Starts a service, which is stopped after the test. */
  static async start(reply: (asked: Asked) => Reply | Promise<Reply> = ({ text }) => said(polished(text))) {
    const service = new ChatServer(reply);
    const server = createServer((request, response) => void service.answer(request, response));
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    service.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/v1`;
    onTestFinished(() => {
      server.closeAllConnections();
      return new Promise<void>((resolve) => server.close(() => resolve()));
    });
    return service;
  }

  /** How often a text was asked for. */
  times(text: string): number {
    return this.asked.filter((one) => one.text === text).length;
  }

  private async answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    this.most = Math.max(this.most, ++this.running);
    try {
      await send(response, await this.replyTo(request));
    } finally {
      this.running--;
    }
  }

  private async replyTo(request: IncomingMessage): Promise<Reply> {
    if (request.url === "/v1/models") return { body: this.models };
    if (request.url !== "/v1/chat/completions") return { status: 404, body: { error: { message: "no such route" } } };
    const body = await json(request);
    const [{ content }] = body.messages as [{ content: string }];
    const text = content.split("\n\n").at(-1) ?? "";
    const asked = { text, times: this.times(text) + 1, before: this.asked.length, body, headers: request.headers };
    this.asked.push(asked);
    return await this.reply(asked);
  }
}

async function json(request: IncomingMessage): Promise<Record<string, unknown>> {
  const parts: Buffer[] = [];
  for await (const part of request) parts.push(part);
  return JSON.parse(Buffer.concat(parts).toString());
}

async function send(response: ServerResponse, { status = 200, headers, body, after, halfway, cut }: Reply) {
  await pause(after);
  if (cut === "at once") {
    response.destroy();
    return;
  }
  const text = typeof body === "string" ? body : JSON.stringify(body ?? {});
  const type = typeof body === "string" ? "text/html" : "application/json";
  response.writeHead(status, { "content-type": type, "content-length": Buffer.byteLength(text), ...headers });
  const middle = Math.ceil(text.length / 2);
  response.write(text.slice(0, middle));
  await pause(halfway);
  if (cut) response.destroy();
  else response.end(text.slice(middle));
}

async function pause(milliseconds: number | undefined): Promise<void> {
  if (milliseconds) await new Promise((resolve) => setTimeout(resolve, milliseconds));
}
