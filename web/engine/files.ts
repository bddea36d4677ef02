/** The files of a model: loaded once, checked, and kept in the browser's cache. */
import { parseWebModel, type WebModel, type WebModelFile } from "../../src/models/web-model.ts";

const cacheName = "minigpt4-model";

/** Told what has been received, in bytes of all files together. */
export type OnReceived = (received: number) => void;

/** @throws Error saying what is wrong with it */
export async function loadModelJson(url: string): Promise<WebModel> {
  const response = await fetchOrExplain(url);
  const json: unknown = await response.json().catch(() => undefined);
  return parseWebModel(json);
}

/** Fetches files beside `model.json`, or takes them from the cache; their bytes one after the other. */
export async function loadFiles(
  base: string,
  files: readonly WebModelFile[],
  onReceived: OnReceived,
): Promise<Uint8Array<ArrayBuffer>> {
  const all = allocate(files.reduce((sum, { bytes }) => sum + bytes, 0));
  // Only a secure page has a cache; without one everything is loaded each time.
  const cache = await globalThis.caches?.open(cacheName).catch(() => undefined);
  let offset = 0;
  for (const file of files) {
    const target = all.subarray(offset, offset + file.bytes);
    const begin = offset;
    await loadFile(urlOf(base, file), file, target, cache, (received) => onReceived(begin + received));
    offset += file.bytes;
  }
  return all;
}

/** Removes what the cache holds of other versions of the model at this place. */
export async function forgetOthers(base: string, files: readonly WebModelFile[]): Promise<void> {
  const cache = await globalThis.caches?.open(cacheName).catch(() => undefined);
  if (!cache) return;
  const folder = new URL(".", base).href;
  const current = new Set(files.map((file) => urlOf(base, file)));
  for (const { url } of await cache.keys()) {
    if (new URL(".", url).href === folder && !current.has(url)) await cache.delete(url);
  }
}

/** A new version has a new address, so that no cache on the way gives the old one. */
function urlOf(base: string, { name, sha256 }: WebModelFile): string {
  return new URL(`${name}?${sha256.slice(0, 16)}`, base).href;
}

function allocate(bytes: number): Uint8Array<ArrayBuffer> {
  try {
    return new Uint8Array(bytes);
  } catch {
    throw new Error(`There is not enough memory for the model, which has ${megabytes(bytes)}; close other tabs`);
  }
}

async function loadFile(
  url: string,
  file: WebModelFile,
  target: Uint8Array<ArrayBuffer>,
  cache: Cache | undefined,
  onReceived: OnReceived,
): Promise<void> {
  const kept = await cache?.match(url).catch(() => undefined);
  if (kept && (await readInto(kept, target, onReceived).catch(() => undefined)) && (await isIntact(target, file)))
    return;
  const response = await fetchOrExplain(url);
  const received = await readInto(response, target, onReceived).catch((cause: Error) => {
    throw new Error(`${file.name} broke off while it was loaded: ${cause.message}. Load the page again`, { cause });
  });
  if (!received) throw new Error(`${file.name} should have ${file.bytes} bytes, but has not; upload the folder again`);
  if (!(await isIntact(target, file))) {
    throw new Error(`${file.name} is damaged: its SHA-256 is not that of model.json; upload the folder again`);
  }
  // A full disk or a private window is no reason not to go on.
  await cache?.put(url, new Response(target)).catch(() => {});
}

async function fetchOrExplain(url: string): Promise<Response> {
  const name = new URL(url).pathname.split("/").at(-1);
  const response = await fetch(url).catch((cause: Error) => {
    throw new Error(`${name} cannot be loaded: ${cause.message}`, { cause });
  });
  if (!response.ok) throw new Error(`${name} is not there: the host answered ${response.status}`);
  return response;
}

/** Whether the body had exactly as many bytes as `target` takes. */
async function readInto(response: Response, target: Uint8Array, onReceived: OnReceived): Promise<boolean> {
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

/** Where the page is not secure nothing can be computed, and only the size was checked. */
async function isIntact(bytes: Uint8Array<ArrayBuffer>, { sha256 }: WebModelFile): Promise<boolean> {
  if (!globalThis.crypto.subtle) return true;
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return sha256 === Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function megabytes(bytes: number): string {
  return `${Math.round(bytes / 1e6)} MB`;
}
