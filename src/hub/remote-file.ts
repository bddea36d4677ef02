/** Files on the Hugging Face hub and other servers: size, digest, and download. */

import { mkdir, stat } from "node:fs/promises";
import { dirname } from "node:path";
import { fileDownloadInfo, HUB_URL, listFiles } from "@huggingface/hub";
import type { Digest } from "../files/digest.ts";
import { PartialFile, receiveFile } from "../files/partial-file.ts";
import { Connection, type DownloadOptions, download, HttpError } from "./download.ts";
import type { HubSource } from "./registry.ts";

export interface HubOptions extends DownloadOptions {
  /** The hub's own address if not given. */
  readonly hubUrl?: string;
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

/** Headers of a request for `url`. `fetch` drops the token when the hub redirects to another server. */
function hubHeaders(url: string): Record<string, string> {
  const token = hubToken(new URL(url).origin);
  return token ? { Authorization: `Bearer ${token}` } : {};
}

/** The address of the content. */
async function locate(
  { repo, revision, path }: HubSource,
  bytes: number,
  { hubUrl = HUB_URL, signal }: HubOptions,
): Promise<string> {
  const connection = new Connection(signal);
  try {
    const accessToken = hubToken(hubUrl);
    const info = await fileDownloadInfo({ repo, revision, path, hubUrl, accessToken, fetch: connection.fetch });
    if (!info) throw new Error("the repository has no such file");
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
  readonly hubUrl?: string;
  readonly signal?: AbortSignal;
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
  if (status === 404) return `${message}: ${page} does not exist (any more)`;
  if (status !== 401 && status !== 403) return `${message} for ${page}`;
  return (
    `${message}: ${page} requires access, or no longer exists. Open the page; ` +
    "if it asks you to accept a licence, accept it, and set HF_TOKEN to an access token"
  );
}

/** A file on Google's storage, or on any server that supports HEAD. */
export async function describeUrl(url: string, { signal }: RemoteOptions): Promise<RemoteFile> {
  const connection = new Connection(signal);
  try {
    const { headers } = await connection.fetch(url, { method: "HEAD", headers: { "Accept-Encoding": "identity" } });
    const bytes = Number(headers.get("content-length") ?? Number.NaN);
    if (!Number.isSafeInteger(bytes)) throw new Error("the server does not publish the size of the file");
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
  /** Called with the number of bytes that have been hashed. */
  readonly onChecked?: (bytes: number) => void;
}

/** Whether `target` exists. Its digest was verified before it was renamed. */
export async function isDownloaded({ bytes }: RemoteFile, target: string): Promise<boolean> {
  const status = await stat(target).catch(() => undefined);
  return status?.isFile() === true && status.size === bytes;
}

/** Bytes that are missing. */
export async function remainingBytes(file: RemoteFile, target: string): Promise<number> {
  if (await isDownloaded(file, target)) return 0;
  return Math.max(0, file.bytes - (await PartialFile.countResumable(target)));
}

/**
 * Downloads a file to `target`, or resumes an earlier attempt.
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
