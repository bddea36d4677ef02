/** A hub on this machine, that answers as well or as badly as a test wants. */
import { createHash } from "node:crypto";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { afterAll } from "vitest";
import type { KnownModel } from "../../src/hub/registry.ts";

/** Larger than what sockets buffer, so that a broken connection breaks in the middle. */
export const content = Buffer.alloc(3_000_000, "The quick brown fox. ");

export const model: KnownModel = {
  file: "tiny.gguf",
  bytes: content.length,
  sha256: sha256(content),
  license: "Apache-2.0",
  sources: [{ kind: "hub", repo: "someone/tiny", revision: "abc123", path: "tiny.gguf" }],
};

export function sha256(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

export interface Hub {
  readonly hubUrl: string;
  /** The `Range` of each request for the content. */
  readonly ranges: (string | undefined)[];
  readonly requests: IncomingMessage[];
}

export type Answer = (request: IncomingMessage, response: ServerResponse, begin: number, hub: Hub) => void;

/** The question for the file's size is answered as the hub does; what follows is up to `answer`. */
export function hubAnswering(answer: Answer): Promise<Hub> {
  return serverAnswering((request, response, hub) => {
    if (request.headers.range === "bytes=0-0") {
      sendHead(response, 0, 1);
      response.end(content.subarray(0, 1));
      return;
    }
    hub.ranges.push(request.headers.range);
    answer(request, response, Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? "")?.[1]), hub);
  });
}

export async function serverAnswering(
  answer: (request: IncomingMessage, response: ServerResponse, hub: Hub) => void,
): Promise<Hub> {
  const server = createServer((request, response) => {
    hub.requests.push(request);
    answer(request, response, hub);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  afterAll(() => {
    server.closeAllConnections();
    server.close();
  });
  const hub: Hub = { hubUrl: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, ranges: [], requests: [] };
  return hub;
}

/** Everything from `begin`, as asked. */
export const wellBehaved: Answer = (_, response, begin) => {
  sendHead(response, begin, content.length);
  response.end(content.subarray(begin));
};

/** About a third of the file, then the connection breaks. */
export const breaksOff: Answer = (_, response, begin) => {
  sendHead(response, begin, content.length);
  response.write(content.subarray(begin, begin + 1_000_000), () => response.destroy());
};

export function sendHead(response: ServerResponse, begin: number, end: number): void {
  response.writeHead(206, {
    "content-range": `bytes ${begin}-${end - 1}/${content.length}`,
    "content-length": end - begin,
    etag: '"abc"',
  });
}
