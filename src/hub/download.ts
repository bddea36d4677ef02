/** Downloads over HTTP that resume where an earlier attempt or a broken connection stopped. */
import { Readable } from "node:stream";
import type { ReadableStream } from "node:stream/web";
import pRetry from "p-retry";
import type { PartialFile } from "../files/partial-file.ts";

/** Milliseconds until a server must start its response, and between two chunks of it. */
const responseTimeout = 5_000;
const chunkTimeout = 30_000;

/** The server responded with an HTTP error. */
export class HttpError extends Error {
  override name = "HttpError";
  readonly status: number;

  constructor({ status, statusText }: Response) {
    super(`the server answered ${status} ${statusText}`);
    this.status = status;
  }
}

export interface ConnectionOptions {
  /** Whether HTML is a valid response; else it is taken for a login page of the network. @default false */
  readonly acceptHtml?: boolean;
}

/** A request that times out when the server is silent. */
export class Connection {
  private readonly silence = new AbortController();
  private readonly signal: AbortSignal;
  private readonly acceptHtml: boolean;

  constructor(signal: AbortSignal | undefined, { acceptHtml = false }: ConnectionOptions = {}) {
    this.signal = AbortSignal.any(signal ? [signal, this.silence.signal] : [this.silence.signal]);
    this.acceptHtml = acceptHtml;
  }

  /** `fetch` that throws on HTTP errors and on a web page in place of a file. */
  readonly fetch: typeof fetch = async (url, init) => {
    const timer = this.timeoutAfter(responseTimeout);
    try {
      const response = await fetch(url, { ...init, signal: this.signal });
      if (!response.ok) throw new HttpError(response);
      if (!this.acceptHtml && response.headers.get("content-type")?.startsWith("text/html")) {
        throw new Error("the server answered with a web page; does the network require a login?");
      }
      return response;
    } finally {
      clearTimeout(timer);
    }
  };

  /** The chunks of a response's body. */
  async *chunks(body: NonNullable<Response["body"]>): AsyncGenerator<Uint8Array> {
    const timer = this.timeoutAfter(chunkTimeout);
    // One class under two names: that of the browser's types, and Node's.
    const stream = body as unknown as ReadableStream<Uint8Array>;
    try {
      // Read without a Node stream around it, a body that is aborted between two chunks may never end.
      for await (const chunk of Readable.fromWeb(stream, { signal: this.signal })) {
        timer.refresh();
        yield chunk;
      }
    } catch (error) {
      this.signal.throwIfAborted();
      throw error;
    } finally {
      clearTimeout(timer);
    }
  }

  /** Aborts what is still being received. */
  close(): void {
    this.silence.abort();
  }

  private timeoutAfter(milliseconds: number): NodeJS.Timeout {
    const reason = new Error(`the server was silent for ${milliseconds / 1000} s`);
    return setTimeout(() => this.silence.abort(reason), milliseconds);
  }
}

/** An error in one line, with its cause where the message alone says little ("fetch failed"). */
export function explainFailure(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const cause = error.message === "fetch failed" && error.cause ? `: ${explainFailure(error.cause)}` : "";
  const code = error.message === "" && "code" in error ? String(error.code) : "";
  return `${error.message}${code}${cause}`;
}

/** A broken connection is retried this often, as long as each attempt received something. */
const maxRetries = 9;
/** An attempt that received this many bytes does not count: large files take hours. */
const muchOfAFile = 2 ** 26;

export interface DownloadOptions {
  readonly onProgress: (received: number) => void;
  readonly signal?: AbortSignal;
}

export interface Download extends DownloadOptions {
  readonly headers?: Readonly<Record<string, string>>;
  /** Size of the file. */
  readonly bytes: number;
}

/**
 * Fills `partial` up to the size of the file, resuming after what it already has.
 * @throws Error if the server does not respond in time, refuses, or stops early
 */
export async function download(url: string, partial: PartialFile, file: Download): Promise<void> {
  if (partial.size > file.bytes) await partial.restart();
  let received = 0;
  const attempt = async () => {
    const before = partial.size;
    try {
      if (partial.size < file.bytes) await downloadRest(url, partial, file);
    } finally {
      received = partial.size - before;
    }
  };
  await pRetry(attempt, {
    retries: maxRetries,
    minTimeout: 100,
    maxTimeout: 10_000,
    shouldRetry: () => received > 0,
    shouldConsumeRetry: () => received < muchOfAFile,
    signal: file.signal,
  });
}

/** Appends the missing bytes, or starts again if the server does not support ranges. */
async function downloadRest(
  url: string,
  partial: PartialFile,
  { headers, bytes, onProgress, signal }: Download,
): Promise<void> {
  const connection = new Connection(signal);
  try {
    const response = await connection.fetch(url, { headers: { ...headers, Range: `bytes=${partial.size}-` } });
    if (response.status !== 206) await partial.restart();
    else if (!response.headers.get("content-range")?.startsWith(`bytes ${partial.size}-`)) {
      const range = response.headers.get("content-range");
      throw new Error(`requested bytes ${partial.size}- of the file, but the server sent ${range}`);
    }
    if (response.body) await partial.append(connection.chunks(response.body), bytes, onProgress);
    if (partial.size < bytes) throw new Error(`the connection ended after ${partial.size} of ${bytes} bytes`);
  } finally {
    connection.close();
  }
}
