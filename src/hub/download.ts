/** Bytes over HTTP, on from where an earlier attempt or a broken connection stopped. */
import { Readable } from "node:stream";
import type { ReadableStream } from "node:stream/web";
import type { PartialFile } from "../files/partial-file.ts";

// A request to a server that may be silent, refuse, or send something else.

/** Milliseconds until a server must have begun to answer, and between two pieces of its answer. */
const answerWithin = 5_000;
const pieceWithin = 30_000;

/** The server answered, but not with what it was asked for. */
export class RefusedError extends Error {
  override name = "RefusedError";
  readonly status: number;

  constructor({ status, statusText }: Response) {
    super(`the server answered ${status} ${statusText}`);
    this.status = status;
  }
}

/** A request that is given up when the server is silent for too long. */
export class Connection {
  private readonly silence = new AbortController();
  private readonly signal: AbortSignal;

  constructor(signal: AbortSignal | undefined) {
    this.signal = AbortSignal.any(signal ? [signal, this.silence.signal] : [this.silence.signal]);
  }

  /** `fetch` which takes neither an error nor a web page for the file. */
  readonly fetch: typeof fetch = async (url, init) => {
    const timer = this.giveUpAfter(answerWithin);
    try {
      const response = await fetch(url, { ...init, signal: this.signal });
      if (!response.ok) throw new RefusedError(response);
      if (response.headers.get("content-type")?.startsWith("text/html")) {
        throw new Error("the server answered with a web page; does the network ask for a login?");
      }
      return response;
    } finally {
      clearTimeout(timer);
    }
  };

  async *pieces(body: NonNullable<Response["body"]>): AsyncGenerator<Uint8Array> {
    const timer = this.giveUpAfter(pieceWithin);
    // One class under two names: that of the browser's types, and Node's.
    const stream = body as unknown as ReadableStream<Uint8Array>;
    try {
      // Read without a Node stream around it, a body that is given up between two pieces may never end.
      for await (const piece of Readable.fromWeb(stream, { signal: this.signal })) {
        timer.refresh();
        yield piece;
      }
    } catch (error) {
      this.signal.throwIfAborted();
      throw error;
    } finally {
      clearTimeout(timer);
    }
  }

  /** Whatever the server would still send is not received. */
  end(): void {
    this.silence.abort();
  }

  private giveUpAfter(milliseconds: number): NodeJS.Timeout {
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

/** A connection that breaks is taken up again this often, as long as each time brings something. */
const mostConnections = 5;
/** One that brought so many bytes before it broke does not count: large files take hours. */
const muchOfAFile = 2 ** 26;

export interface DownloadOptions {
  readonly onProgress: (received: number) => void;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Fills `partial` up to the `bytes` that the file should have.
 * @throws Error if the server does not answer in time, refuses, or stops early
 */
export async function download(
  url: string,
  headers: Readonly<Record<string, string>>,
  bytes: number,
  partial: PartialFile,
  options: DownloadOptions,
): Promise<void> {
  if (partial.size > bytes) await partial.restart();
  for (let connection = 1; partial.size < bytes; connection++) {
    const before = partial.size;
    try {
      await fetchRest(url, headers, bytes, partial, options);
    } catch (error) {
      const brought = partial.size - before;
      if (brought >= muchOfAFile) connection = 0;
      if (options.signal?.aborted || connection === mostConnections || brought <= 0) throw error;
    }
  }
}

/** Appends what is missing, or everything if the server does not know ranges. */
async function fetchRest(
  url: string,
  headers: Readonly<Record<string, string>>,
  bytes: number,
  partial: PartialFile,
  { onProgress, signal }: DownloadOptions,
): Promise<void> {
  const connection = new Connection(signal);
  try {
    const response = await connection.fetch(url, { headers: { ...headers, Range: `bytes=${partial.size}-` } });
    if (response.status !== 206) await partial.restart();
    else if (!response.headers.get("content-range")?.startsWith(`bytes ${partial.size}-`)) {
      throw new Error(`asked for the bytes from ${partial.size} on, got ${response.headers.get("content-range")}`);
    }
    if (response.body) await partial.append(connection.pieces(response.body), bytes, onProgress);
    if (partial.size < bytes) throw new Error(`the connection ended after ${partial.size} of ${bytes} bytes`);
  } finally {
    connection.end();
  }
}
