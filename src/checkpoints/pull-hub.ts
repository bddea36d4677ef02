/** Fetching a file from the Hugging Face hub, on from where an earlier attempt stopped. */
import { fileDownloadInfo, HUB_URL } from "@huggingface/hub";
import type { PartialFile } from "./partial-file.ts";
import type { HubSource } from "./registry.ts";

/** Milliseconds until a server must have begun to answer, and between two pieces of its answer. */
const answerWithin = 5_000;
const pieceWithin = 30_000;

/** A connection that breaks is taken up again this often, as long as each time brings something. */
const mostConnections = 5;

export interface HubOptions {
  /** The hub's own address if not given. */
  readonly hubUrl?: string;
  readonly onProgress: (received: number) => void;
  readonly signal?: AbortSignal;
}

/**
 * Fills `partial` up to the `bytes` that the file should have. Sends the user's `HF_TOKEN` to the hub itself only.
 * @throws Error if the server does not answer in time, has no such file or one of another size, or stops early
 */
export async function fetchFromHub(
  source: HubSource,
  bytes: number,
  partial: PartialFile,
  options: HubOptions,
): Promise<void> {
  const { hubUrl = HUB_URL, signal } = options;
  const accessToken = hubUrl === HUB_URL ? process.env.HF_TOKEN : undefined;
  const url = await locate(source, bytes, hubUrl, accessToken, signal);
  // The library may have followed a redirect to a signed address elsewhere, which needs no token.
  const toHub = new URL(url).origin === new URL(hubUrl).origin;
  const headers: Record<string, string> = accessToken && toHub ? { Authorization: `Bearer ${accessToken}` } : {};
  for (let connection = 1; partial.size < bytes; connection++) {
    const before = partial.size;
    try {
      await fetchRest(url, headers, bytes, partial, options);
    } catch (error) {
      if (signal?.aborted || connection === mostConnections || partial.size <= before) throw error;
    }
  }
}

/** The address from which the file's bytes can be had. */
async function locate(
  { repo, revision, path }: HubSource,
  bytes: number,
  hubUrl: string,
  accessToken: string | undefined,
  signal: AbortSignal | undefined,
): Promise<string> {
  const connection = new Connection(signal);
  try {
    const info = await fileDownloadInfo({ repo, revision, path, hubUrl, accessToken, fetch: connection.fetch });
    if (!info) throw new Error("there is no such file");
    if (info.size !== bytes) throw new Error(`the file there has ${info.size} bytes, not ${bytes}`);
    return info.url;
  } finally {
    connection.end();
  }
}

/** Appends what is missing, or everything if the server does not know ranges. */
async function fetchRest(
  url: string,
  headers: Record<string, string>,
  bytes: number,
  partial: PartialFile,
  { onProgress, signal }: HubOptions,
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

/** A request that is given up when the server is silent for too long. */
class Connection {
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
      if (!response.ok) throw new Error(`the server answered ${response.status} ${response.statusText}`);
      if (response.headers.get("content-type")?.startsWith("text/html")) {
        throw new Error("the server answered with a web page; does the network ask for a login?");
      }
      return response;
    } finally {
      clearTimeout(timer);
    }
  };

  async *pieces(body: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
    const timer = this.giveUpAfter(pieceWithin);
    try {
      for await (const piece of body) {
        timer.refresh();
        yield piece;
      }
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
