/** Fetching a file from the Hugging Face hub, on from where an earlier attempt stopped. */
import { fileDownloadInfo, HUB_URL } from "@huggingface/hub";
import { Connection } from "./connection.ts";
import { type DownloadOptions, download } from "./download.ts";
import type { PartialFile } from "./partial-file.ts";
import type { HubSource } from "./registry.ts";

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
  await download(url, hubHeaders(url), bytes, partial, options);
}

/** The user's `HF_TOKEN`, if a hub is the hub itself and no mirror of it. */
export function hubToken(hubUrl: string): string | undefined {
  return hubUrl === HUB_URL ? process.env.HF_TOKEN || undefined : undefined;
}

/** What a request for `url` needs to tell; where the hub redirects it to another server, `fetch` leaves the token out. */
export function hubHeaders(url: string): Record<string, string> {
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
    connection.end();
  }
}
