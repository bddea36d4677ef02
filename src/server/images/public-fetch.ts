/** Fetches a file from the public internet for a client that named its URL, and from nowhere else. */

import { lookup as systemLookup } from "node:dns/promises";
import { request as httpRequest, type IncomingMessage, type RequestOptions } from "node:http";
import { request as httpsRequest } from "node:https";
import { isIP, type LookupFunction } from "node:net";
import ipaddr from "ipaddr.js";
import { ImageRejectedError, tooManyBytes } from "../errors.ts";

// Which network addresses belong to the public internet, and not to this machine, its networks or its cloud.

/** All that is routed in public; the rest of IPv6 is local, reserved, or an IPv4 address in disguise. */
const globalUnicast = ipaddr.IPv6.parseCIDR("2000::/3");

/** Azure's own services, which a virtual machine reaches at an address that looks like any other. */
const cloudService = "168.63.129.16";

/**
 * Whether an IP address (as a resolver writes it) is one of the public internet. Forms that carry an IPv4 address inside
 * of an IPv6 one (mapped, NAT64, 6to4, Teredo) count as not public, whatever they carry.
 */
export function isPublicAddress(text: string): boolean {
  if (!ipaddr.isValid(text)) return false;
  const address = ipaddr.parse(text);
  if (address.range() !== "unicast") return false;
  return address instanceof ipaddr.IPv6 ? address.match(globalUnicast) : address.toString() !== cloudService;
}

/** The addresses of a name. */
type Resolver = (hostname: string) => Promise<readonly string[]>;

/** A place that may be fetched from although it is not public, for example an image server beside this one. */
interface Endpoint {
  readonly address: string;
  readonly port: number;
}

export interface FetchPolicy {
  /** Most bytes of a file. */
  readonly maxBytes: number;
  /** Told of each piece as it comes; what it throws ends the fetch. */
  readonly onBytes?: (bytes: number) => void;
  /** Most milliseconds for all of it: names, redirects and the file. */
  readonly timeout: number;
  readonly allow?: readonly Endpoint[];
  /** By default the system's. */
  readonly resolve?: Resolver;
}

const maxRedirects = 3;
const maxUrlLength = 8192;
const maxHeaderBytes = 16 * 1024;
const redirects = new Set([301, 302, 303, 307, 308]);

/** Neither cookies nor a referrer; nothing packed, so that what is counted is what comes out. */
const headers = { accept: "image/*", "accept-encoding": "identity", "user-agent": "minigpt4" };

/**
 * The bytes of an image at an http or https URL. Each name is resolved once, all of its addresses are checked, and the
 * connection is made to the addresses that were checked; so is every redirect.
 *
 * @throws ImageRefusedError if the URL leads to where it must not, or to no image, or exceeds a limit; the signal's reason if it is aborted
 */
export async function fetchPublic(url: string, policy: FetchPolicy, signal?: AbortSignal): Promise<Uint8Array> {
  signal?.throwIfAborted();
  const ending = new AbortController();
  const abort = () => ending.abort(signal?.reason);
  signal?.addEventListener("abort", abort, { once: true });
  const timer = setTimeout(() => {
    ending.abort(failed(`The image could not be fetched within ${policy.timeout / 1000} seconds`));
  }, policy.timeout);
  try {
    return await follow(url, policy, ending.signal);
  } catch (error) {
    ending.signal.throwIfAborted();
    if (error instanceof ImageRejectedError) throw error;
    throw failed("The image could not be fetched: the connection failed or broke off", error);
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", abort);
    // Also closes a connection whose answer is not read to its end.
    ending.abort();
  }
}

async function follow(first: string, policy: FetchPolicy, signal: AbortSignal): Promise<Uint8Array> {
  let url = parse(first);
  for (let redirected = 0; ; redirected++) {
    const response = await get(url, await checkedAddresses(url, policy, signal), signal);
    const { statusCode: status = 0, headers } = response;
    if (status === 200) return readImage(response, policy);
    response.destroy();
    if (!redirects.has(status) || headers.location === undefined) {
      throw failed(`The image could not be fetched: its server answered with status ${status}`);
    }
    if (redirected === maxRedirects) {
      throw failed(`The image could not be fetched: its server redirects more than ${maxRedirects} times`);
    }
    url = parse(headers.location, url);
  }
}

function parse(text: string, base?: URL): URL {
  const url = text.length <= maxUrlLength && URL.canParse(text, base?.href) ? new URL(text, base) : undefined;
  if (!url) throw refused("The image URL is not valid, or too long");
  if (url.protocol !== "http:" && url.protocol !== "https:") {
    throw refused("An image URL should begin with https:, http: or data:, also where it redirects to");
  }
  if (url.username !== "" || url.password !== "") throw refused("An image URL with a user name or password is refused");
  return url;
}

/**
 * The addresses to connect to. One that must not be reached refuses them all. Whether a name exists in a private network
 * is not told: no address and a forbidden one read alike.
 */
async function checkedAddresses(url: URL, policy: FetchPolicy, signal: AbortSignal): Promise<readonly string[]> {
  const { resolve = systemResolver, allow = [] } = policy;
  const secure = url.protocol === "https:";
  const port = url.port === "" ? (secure ? 443 : 80) : Number(url.port);
  const host = hostOf(url);
  const addresses = isIP(host) ? [host] : await race(resolve(host), signal).catch(() => []);
  signal.throwIfAborted();
  // The URL parser drops a scheme's own port; what is left is another one.
  const reachable = (address: string) =>
    (url.port === "" && isPublicAddress(address)) ||
    allow.some((place) => place.address === address && place.port === port);
  if (addresses.length === 0 || !addresses.every(reachable)) {
    throw refused("The image URL does not lead to a public address on the usual port, so it is not fetched");
  }
  return addresses;
}

function get(url: URL, addresses: readonly string[], signal: AbortSignal): Promise<IncomingMessage> {
  const known = addresses.map((address) => ({ address, family: isIP(address) }));
  const [one = { address: "", family: 0 }] = known;
  const lookup: LookupFunction = (_, { all }, callback) => {
    if (all) callback(null, known);
    else callback(null, one.address, one.family);
  };
  const options: RequestOptions = {
    host: hostOf(url),
    port: url.port,
    path: url.pathname + url.search,
    headers: { ...headers, host: url.host },
    lookup,
    // A connection of its own: none that is kept open, and no proxy that the environment names.
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
    throw failed("What the image URL leads to is no image: its content-type should be image/...");
  }
  if ((response.headers["content-encoding"] ?? "identity").toLowerCase() !== "identity") {
    throw failed("The image could not be fetched: its server sends it packed, although that was not asked for");
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

/** A resolver cannot be broken off, but need not be waited for. */
function race<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    signal.addEventListener("abort", () => reject(signal.reason), { once: true });
    promise.then(resolve, reject);
  });
}

/** The host of a URL, without the brackets of an IPv6 address. */
function hostOf(url: URL): string {
  return url.hostname.replace(/^\[|\]$/g, "");
}

function refused(message: string): ImageRejectedError {
  return new ImageRejectedError("invalid_image_url", message);
}

function failed(message: string, cause?: unknown): ImageRejectedError {
  return new ImageRejectedError("failed_to_download_image", message, { cause });
}
