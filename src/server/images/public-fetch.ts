/** Fetches an image for a client from the public internet only, never from this machine or its networks (SSRF protection). */
import { lookup as systemLookup } from "node:dns/promises";
import { request as httpRequest, type IncomingMessage, type RequestOptions } from "node:http";
import { request as httpsRequest } from "node:https";
import { isIP, type LookupFunction } from "node:net";
import ipaddr from "ipaddr.js";
import { ImageRejectedError, tooManyBytes } from "../errors.ts";

/** Resolves a host name to its addresses. */
type Resolver = (hostname: string) => Promise<readonly string[]>;

interface Endpoint {
  readonly address: string;
  readonly port: number;
}

export interface FetchPolicy {
  /** Maximum size of an image. */
  readonly maxBytes: number;
  /** Called with the length of each received chunk. An error it throws ends the download. */
  readonly onBytes?: (bytes: number) => void;
  /** Time limit in milliseconds, for name resolution, redirects and download together. */
  readonly timeout: number;
  /** Endpoints that are allowed although they are not public, such as a local image server. @default none */
  readonly allow?: readonly Endpoint[];
  /** @default the system's resolver */
  readonly resolve?: Resolver;
}

/** The publicly routed part of IPv6; the rest is local, reserved or wraps an IPv4 address. */
const globalUnicast = ipaddr.IPv6.parseCIDR("2000::/3");

/** Azure's internal services, which use an address that looks public. */
const azureServiceAddress = "168.63.129.16";

const maxRedirects = 3;
const maxUrlLength = 8192;
const maxHeaderBytes = 16 * 1024;
const redirects = new Set([301, 302, 303, 307, 308]);

/** No cookies and no referrer. No compression, so that the bytes counted are those of the image. */
const headers = { accept: "image/*", "accept-encoding": "identity", "user-agent": "minigpt4" };

/**
 * Downloads the image at an http or https URL. A host name is resolved once, all of its addresses are checked, and the
 * connection uses a checked address (no DNS rebinding). Redirects are checked in the same way.
 *
 * @throws ImageRejectedError if the URL is not public, is not an image, or exceeds a limit; the signal's reason if it is aborted
 */
export async function fetchPublic(url: string, policy: FetchPolicy, signal?: AbortSignal): Promise<Uint8Array> {
  signal?.throwIfAborted();
  const controller = new AbortController();
  const onAbort = () => controller.abort(signal?.reason);
  signal?.addEventListener("abort", onAbort, { once: true });
  const timer = setTimeout(() => {
    controller.abort(downloadError(`The image could not be downloaded within ${policy.timeout / 1000} seconds.`));
  }, policy.timeout);
  try {
    return await followRedirects(url, policy, controller.signal);
  } catch (error) {
    controller.signal.throwIfAborted();
    if (error instanceof ImageRejectedError) throw error;
    throw downloadError("The image could not be downloaded: the connection failed or was interrupted.", error);
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", onAbort);
    // Closes the connection if the response has not been read to its end.
    controller.abort();
  }
}

/**
 * Whether an IP address belongs to the public internet. IPv6 addresses that contain an IPv4 address (mapped, NAT64, 6to4,
 * Teredo) are never public.
 */
export function isPublicAddress(text: string): boolean {
  if (!ipaddr.isValid(text)) return false;
  const address = ipaddr.parse(text);
  if (address.range() !== "unicast") return false;
  return address instanceof ipaddr.IPv6 ? address.match(globalUnicast) : address.toString() !== azureServiceAddress;
}

async function followRedirects(first: string, policy: FetchPolicy, signal: AbortSignal): Promise<Uint8Array> {
  let url = parseUrl(first);
  for (let redirected = 0; ; redirected++) {
    const response = await get(url, await checkedAddresses(url, policy, signal), signal);
    const { statusCode: status = 0, headers } = response;
    if (status === 200) return readImage(response, policy);
    response.destroy();
    if (!redirects.has(status) || headers.location === undefined) {
      throw downloadError(`The image could not be downloaded: its server returned status ${status}.`);
    }
    if (redirected === maxRedirects) {
      throw downloadError(`The image could not be downloaded: its server redirects more than ${maxRedirects} times.`);
    }
    url = parseUrl(headers.location, url);
  }
}

function parseUrl(text: string, base?: URL): URL {
  const url = text.length <= maxUrlLength && URL.canParse(text, base?.href) ? new URL(text, base) : undefined;
  if (!url) throw urlError("The image URL is invalid or too long.");
  if (url.protocol !== "http:" && url.protocol !== "https:") {
    throw urlError("An image URL, and its redirects, must begin with https:, http: or data:.");
  }
  if (url.username !== "" || url.password !== "") {
    throw urlError("An image URL must not contain a user name or password.");
  }
  return url;
}

/**
 * The addresses to connect to; all of them must be allowed. A name without an address fails like a forbidden one, so that the
 * error does not reveal which names exist in a private network.
 */
async function checkedAddresses(url: URL, policy: FetchPolicy, signal: AbortSignal): Promise<readonly string[]> {
  const { resolve = systemResolver, allow = [] } = policy;
  const secure = url.protocol === "https:";
  const port = url.port === "" ? (secure ? 443 : 80) : Number(url.port);
  const host = hostName(url);
  const addresses = isIP(host) ? [host] : await withSignal(resolve(host), signal).catch(() => []);
  signal.throwIfAborted();
  // The URL parser drops the default port, so any port that is left is another one.
  const isAllowed = (address: string) =>
    (url.port === "" && isPublicAddress(address)) ||
    allow.some((endpoint) => endpoint.address === address && endpoint.port === port);
  if (addresses.length === 0 || !addresses.every(isAllowed)) {
    throw urlError("The image URL must lead to a public address on the default port.");
  }
  return addresses;
}

function get(url: URL, addresses: readonly string[], signal: AbortSignal): Promise<IncomingMessage> {
  const checked = addresses.map((address) => ({ address, family: isIP(address) }));
  const [first = { address: "", family: 0 }] = checked;
  const lookup: LookupFunction = (_, { all }, callback) => {
    if (all) callback(null, checked);
    else callback(null, first.address, first.family);
  };
  const options: RequestOptions = {
    host: hostName(url),
    port: url.port,
    path: url.pathname + url.search,
    headers: { ...headers, host: url.host },
    lookup,
    // A new connection, not a kept-alive one, and no proxy from the environment.
    agent: false,
    maxHeaderSize: maxHeaderBytes,
    signal,
  };
  return new Promise((resolve, reject) => {
    const request = (url.protocol === "https:" ? httpsRequest : httpRequest)(options, resolve);
    request.on("error", reject);
    request.end();
  });
}

async function readImage(response: IncomingMessage, { maxBytes, onBytes }: FetchPolicy): Promise<Uint8Array> {
  const type = (response.headers["content-type"] ?? "").split(";", 1)[0]?.trim().toLowerCase() ?? "";
  if (!type.startsWith("image/") && type !== "application/octet-stream") {
    throw downloadError("The image URL does not lead to an image: its content-type must be image/...");
  }
  if ((response.headers["content-encoding"] ?? "identity").toLowerCase() !== "identity") {
    throw downloadError("The image could not be downloaded: its server compresses it although identity was requested.");
  }
  if (Number(response.headers["content-length"] ?? 0) > maxBytes) throw tooManyBytes(maxBytes);
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of response) {
    bytes += chunk.length;
    if (bytes > maxBytes) throw tooManyBytes(maxBytes);
    onBytes?.(chunk.length);
    chunks.push(chunk);
  }
  return new Uint8Array(Buffer.concat(chunks));
}

async function systemResolver(hostname: string): Promise<string[]> {
  return (await systemLookup(hostname, { all: true })).map(({ address }) => address);
}

/** A resolver cannot be cancelled, but does not have to be awaited. */
function withSignal<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    signal.addEventListener("abort", () => reject(signal.reason), { once: true });
    promise.then(resolve, reject);
  });
}

/** The host name without the brackets of an IPv6 address. */
function hostName(url: URL): string {
  return url.hostname.replace(/^\[|\]$/g, "");
}

function urlError(message: string): ImageRejectedError {
  return new ImageRejectedError("invalid_image_url", message);
}

function downloadError(message: string, cause?: unknown): ImageRejectedError {
  return new ImageRejectedError("failed_to_download_image", message, { cause });
}
