/** Files of which the server that has them says how large they are, and their hashes. */

import { mkdir, stat } from "node:fs/promises";
import { dirname } from "node:path";
import { fileDownloadInfo, HUB_URL, listFiles } from "@huggingface/hub";
import type { Digest } from "../files/digest.ts";
import { PartialFile, receiveFile } from "../files/partial-file.ts";
import { Connection, type DownloadOptions, download, HttpError } from "./download.ts";
import type { HubSource } from "./registry.ts";

// Fetching a file from the Hugging Face hub, on from where an earlier attempt stopped.

export interface HubOptions extends DownloadOptions {
  /** The hub's own address if not given. */
  readonly hubUrl?: string | undefined;
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
  const url = await locate(source, bytes, options);
  // The library may have followed a redirect to a signed address elsewhere, which needs no token.
  await download(url, partial, { ...options, headers: hubHeaders(url), bytes });
}

/** The user's `HF_TOKEN`, if a hub is the hub itself and no mirror of it. */
function hubToken(hubUrl: string): string | undefined {
  return hubUrl === HUB_URL ? process.env.HF_TOKEN || undefined : undefined;
}

/** What a request for `url` needs to tell; where the hub redirects it to another server, `fetch` leaves the token out. */
function hubHeaders(url: string): Record<string, string> {
  const token = hubToken(new URL(url).origin);
  return token ? { Authorization: `Bearer ${token}` } : {};
}

/** The address from which the file's bytes can be had. */
async function locate(
  { repo, revision, path }: HubSource,
  bytes: number,
  { hubUrl = HUB_URL, signal }: HubOptions,
): Promise<string> {
  const connection = new Connection(signal);
  try {
    const accessToken = hubToken(hubUrl);
    const info = await fileDownloadInfo({ repo, revision, path, hubUrl, accessToken, fetch: connection.fetch });
    if (!info) throw new Error("there is no such file");
    if (info.size !== bytes) throw new Error(`the file there has ${info.size} bytes, not ${bytes}`);
    return info.url;
  } finally {
    connection.close();
  }
}

export interface RemoteFile {
  readonly url: string;
  readonly bytes: number;
  /** Undefined if the server does not publish one. */
  readonly digest?: Digest;
}

export interface RemoteOptions {
  /** The Hugging Face hub's own address if not given. */
  readonly hubUrl?: string | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** Milliseconds for a list of files to arrive as a whole. */
const listWithin = 30_000;

/**
 * The files in the topmost folder of a repository on the hub, by name. Sends the user's `HF_TOKEN` to the hub itself only.
 * @param repo a model as `owner/name`, or `spaces/owner/name`
 * @throws Error saying what can be done if the hub does not let the user in
 */
export async function listHubFiles(
  repo: string,
  { hubUrl = HUB_URL, signal }: RemoteOptions,
): Promise<Map<string, RemoteFile>> {
  const timeout = AbortSignal.timeout(listWithin);
  const connection = new Connection(signal ? AbortSignal.any([signal, timeout]) : timeout);
  try {
    const files = new Map<string, RemoteFile>();
    const listing = listFiles({ repo, hubUrl, accessToken: hubToken(hubUrl), fetch: connection.fetch });
    for await (const { type, path, size, oid, lfs } of listing) {
      if (type !== "file") continue;
      const digest: Digest | undefined = lfs
        ? { algorithm: "sha256", hex: lfs.oid }
        : oid
          ? { algorithm: "git-blob", hex: oid }
          : undefined;
      files.set(path, {
        url: `${hubUrl}/${repo}/resolve/main/${encodeURIComponent(path)}`,
        bytes: lfs?.size ?? size,
        digest,
      });
    }
    return files;
  } catch (error) {
    throw error instanceof HttpError ? new Error(refusal(repo, error), { cause: error }) : error;
  } finally {
    connection.close();
  }
}

function refusal(repo: string, { status, message }: HttpError): string {
  const page = `https://huggingface.co/${repo}`;
  if (status === 404) return `${message}: ${page} is not there (any more)`;
  if (status !== 401 && status !== 403) return `${message} when asked for ${page}`;
  return (
    `${message}: ${page} is open only to people whom its owner lets in, or is gone. Look at the page; ` +
    "if it asks you to accept a licence, do so, and put an access token of yours into the environment as HF_TOKEN"
  );
}

/** A file that lies on Google's storage, or anywhere where a server answers HEAD. */
export async function describeUrl(url: string, { signal }: RemoteOptions): Promise<RemoteFile> {
  const connection = new Connection(signal);
  try {
    const { headers } = await connection.fetch(url, { method: "HEAD", headers: { "Accept-Encoding": "identity" } });
    const bytes = Number(headers.get("content-length") ?? Number.NaN);
    if (!Number.isSafeInteger(bytes)) throw new Error("the server does not say how large the file is");
    return { url, bytes, digest: md5Of(headers.get("x-goog-hash")) };
  } finally {
    connection.close();
  }
}

/** Of `crc32c=...,md5=...`, in base64. */
function md5Of(hashes: string | null): Digest | undefined {
  const md5 = /(?:^|,)\s*md5=([A-Za-z0-9+/]{22}==)/.exec(hashes ?? "")?.[1];
  return md5 === undefined ? undefined : { algorithm: "md5", hex: Buffer.from(md5, "base64").toString("hex") };
}

export interface FetchOptions extends DownloadOptions {
  /** Bytes of the file that have been compared with its hash. */
  readonly onChecked?: (bytes: number) => void;
}

/** Whether `target` is there: it was checked before it came to its place. */
export async function isDownloaded({ bytes }: RemoteFile, target: string): Promise<boolean> {
  const status = await stat(target).catch(() => undefined);
  return status?.isFile() === true && status.size === bytes;
}

/** Bytes that are still to be received. */
export async function remainingBytes(file: RemoteFile, target: string): Promise<number> {
  if (await isDownloaded(file, target)) return 0;
  return Math.max(0, file.bytes - (await PartialFile.countResumable(target)));
}

/**
 * Brings a file to `target`, on from where an earlier attempt stopped.
 * @throws Error as `download`, or if its hash is wrong
 */
export async function fetchRemote(file: RemoteFile, target: string, options: FetchOptions): Promise<void> {
  const { url, bytes, digest } = file;
  if (await isDownloaded(file, target)) return;
  await mkdir(dirname(target), { recursive: true });
  await receiveFile(target, {
    digest,
    fill: (partial) => download(url, partial, { ...options, headers: hubHeaders(url), bytes }),
    signal: options.signal,
    onBytes: options.onChecked,
  });
}
