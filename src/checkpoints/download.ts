/** Bytes over HTTP, on from where an earlier attempt or a broken connection stopped. */
import { Connection } from "./connection.ts";
import type { PartialFile } from "./partial-file.ts";

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
