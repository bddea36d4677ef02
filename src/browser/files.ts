/** Downloads the files of a model, verifies them, and keeps them in the browser's cache. */
import { parseWebModel, type WebModel, type WebModelFile, webModelFile } from "../models/web-model.ts";

const cacheName = "minigpt4-model";

/** Bytes of a model's files that have arrived. */
export interface LoadProgress {
  readonly received: number;
  readonly total: number;
}

/** Requests an absolute URL. */
export type Fetch = (url: string) => Promise<Response>;

/** The absolute URL of `model.json`, from its own URL or that of its folder. */
export function modelJsonUrl(url: string): string {
  const absolute = new URL(url, globalThis.location?.href);
  if (!absolute.pathname.endsWith(".json")) absolute.pathname = absolute.pathname.replace(/\/?$/, `/${webModelFile}`);
  return absolute.href;
}

/** Fetches and validates `model.json`. @throws Error if it cannot be fetched or is invalid */
export async function loadModelJson(url: string, fetch: Fetch): Promise<WebModel> {
  const response = await fetchFile(url, fetch);
  const json: unknown = await response.json().catch(() => undefined);
  return parseWebModel(json);
}

interface FilesRequest {
  /** Address of `model.json`, in whose folder the files are. */
  readonly base: string;
  readonly files: readonly WebModelFile[];
  readonly fetch: Fetch;
  /** Called with the number of bytes received of all files together. */
  readonly onReceived: (received: number) => void;
}

/**
 * Loads files from the cache or the network.
 * @returns their concatenated bytes
 * @throws Error naming the file that is missing, incomplete or damaged
 */
export async function loadFiles({ base, files, fetch, onReceived }: FilesRequest): Promise<Uint8Array<ArrayBuffer>> {
  const all = allocate(files.reduce((sum, { bytes }) => sum + bytes, 0));
  // Only secure contexts have a cache; elsewhere every visit downloads everything.
  const cache = await globalThis.caches?.open(cacheName).catch(() => undefined);
  let offset = 0;
  for (const file of files) {
    const target = all.subarray(offset, offset + file.bytes);
    const start = offset;
    await loadFile(file, target, {
      url: fileUrl(base, file),
      cache,
      fetch,
      onReceived: (received) => onReceived(start + received),
    });
    offset += file.bytes;
  }
  return all;
}

/** Deletes cached files of earlier exports to the same folder. */
export async function deleteOldFiles(base: string, files: readonly WebModelFile[]): Promise<void> {
  const cache = await globalThis.caches?.open(cacheName).catch(() => undefined);
  if (!cache) return;
  const folder = new URL(".", base).href;
  const current = new Set(files.map((file) => fileUrl(base, file)));
  for (const { url } of await cache.keys()) {
    if (new URL(".", url).href === folder && !current.has(url)) await cache.delete(url);
  }
}

/** The hash in the URL keeps HTTP caches from serving an earlier export. */
function fileUrl(base: string, { name, sha256 }: WebModelFile): string {
  return new URL(`${name}?${sha256.slice(0, 16)}`, base).href;
}

function allocate(bytes: number): Uint8Array<ArrayBuffer> {
  try {
    return new Uint8Array(bytes);
  } catch {
    throw new Error(`Not enough memory for the model (${megabytes(bytes)}). Close other tabs.`);
  }
}

interface FileSource extends Pick<FilesRequest, "fetch" | "onReceived"> {
  readonly url: string;
  readonly cache?: Cache;
}

async function loadFile(
  file: WebModelFile,
  target: Uint8Array<ArrayBuffer>,
  { url, cache, fetch, onReceived }: FileSource,
): Promise<void> {
  const cached = await cache?.match(url).catch(() => undefined);
  if (cached && (await readInto(cached, target, onReceived).catch(() => undefined)) && (await isIntact(target, file))) {
    return;
  }
  const response = await fetchFile(url, fetch);
  const received = await readInto(response, target, onReceived).catch((cause: Error) => {
    throw new Error(`The download of ${file.name} was interrupted: ${cause.message}. Reload the page.`, { cause });
  });
  if (!received)
    throw new Error(`${file.name} does not have the expected size of ${file.bytes} bytes. Upload the folder again.`);
  if (!(await isIntact(target, file))) {
    throw new Error(
      `${file.name} is damaged: its SHA-256 differs from the one in model.json. Upload the folder again.`,
    );
  }
  // The cache is optional: a full disk or a private window must not stop the model.
  await cache?.put(url, new Response(target)).catch(() => {});
}

async function fetchFile(url: string, fetch: Fetch): Promise<Response> {
  const name = new URL(url).pathname.split("/").at(-1);
  const response = await fetch(url).catch((cause: Error) => {
    throw new Error(`${name} could not be downloaded: ${cause.message}`, { cause });
  });
  if (!response.ok) throw new Error(`${name} is missing: the host responded ${response.status}`);
  return response;
}

/** Reads the body into `target`. @returns whether their sizes match */
async function readInto(
  response: Response,
  target: Uint8Array,
  onReceived: FilesRequest["onReceived"],
): Promise<boolean> {
  const reader = response.body?.getReader();
  let received = 0;
  for (;;) {
    const next = await reader?.read();
    if (!next || next.done) return received === target.length;
    if (received + next.value.length > target.length) {
      await reader?.cancel();
      return false;
    }
    target.set(next.value, received);
    received += next.value.length;
    onReceived(received);
  }
}

/** Checks the SHA-256; insecure contexts have no digests, so there only the size is checked. */
async function isIntact(bytes: Uint8Array<ArrayBuffer>, { sha256 }: WebModelFile): Promise<boolean> {
  if (!globalThis.crypto.subtle) return true;
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return sha256 === Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function megabytes(bytes: number): string {
  return `${Math.round(bytes / 1e6)} MB`;
}
