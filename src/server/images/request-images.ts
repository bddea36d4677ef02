/** The images of a request: fetched, and together small enough to be held and decoded. */

import { setMaxListeners } from "node:events";
import sharp from "sharp";
import { ImageRejectedError, openAiError, tooManyBytes } from "../errors.ts";
import { type FetchPolicy, fetchPublic } from "./public-fetch.ts";

// What of a client's image is looked at before it is decoded: its kind, and how much it would become.

/** What the kinds that are taken begin with, and where that stands. */
const kinds: readonly (readonly [at: number, text: string])[] = [
  [0, "\xff\xd8\xff"],
  [0, "\x89PNG\r\n\x1a\n"],
  [0, "GIF87a"],
  [0, "GIF89a"],
  [8, "WEBP"],
  [4, "ftypavif"],
  [4, "ftypavis"],
];

/**
 * Refuses what is none of a few kinds of images, before any decoder sees it. SVG is a program more than an image, and
 * what a client sends is not run.
 *
 * @throws ImageRefusedError
 */
function checkKind(bytes: Uint8Array): void {
  if (bytes.length === 0) throw new ImageRejectedError("invalid_image", "The image is empty");
  const begin = Buffer.from(bytes.subarray(0, 16)).toString("latin1");
  if (kinds.some(([at, text]) => begin.startsWith(text, at))) return;
  throw new ImageRejectedError("invalid_image", "The image is none of JPEG, PNG, WebP, GIF and AVIF");
}

/** Width and height, as the header says. @throws ImageRefusedError if it is damaged */
async function sizeOf(bytes: Uint8Array): Promise<{ readonly width: number; readonly height: number }> {
  return sharp(bytes, { limitInputPixels: false })
    .metadata()
    .catch((cause: unknown) => {
      throw new ImageRejectedError("invalid_image", "The image is damaged or cut off", { cause });
    });
}

// From the URL of an image in a request to its bytes: data URLs, and images of the public internet where that is allowed.

export interface ImagePolicy extends Partial<FetchPolicy> {
  /** Whether http and https URLs are fetched. */
  readonly allowRemote: boolean;
}

const defaults = { maxBytes: 20 * 1024 * 1024, timeout: 10_000 };

/** Longest head of a data URL, its comma included. */
const maxHead = 256;
const percent = 0x25;

/**
 * The encoded image that a URL stands for: a data URL, or one of http and https if the policy allows that. Files of this
 * machine are never read.
 *
 * @throws ImageRefusedError that says what is wrong with the URL or the image; the signal's reason if it is aborted
 */
export async function fetchImage(url: string, policy: ImagePolicy, signal?: AbortSignal): Promise<Uint8Array> {
  signal?.throwIfAborted();
  const bytes = await encodedImage(url, policy, signal);
  checkKind(bytes);
  return bytes;
}

async function encodedImage(url: string, policy: ImagePolicy, signal?: AbortSignal): Promise<Uint8Array> {
  const { maxBytes = defaults.maxBytes, timeout = defaults.timeout } = policy;
  if (/^data:/i.test(url)) return decodeDataUrl(url, maxBytes);
  if (!/^https?:/i.test(url)) {
    throw new ImageRejectedError(
      "invalid_image_url",
      "An image URL should be a data URL (data:image/png;base64,...) or begin with https: or http:",
    );
  }
  if (!policy.allowRemote) {
    throw new ImageRejectedError(
      "invalid_image_url",
      "This server does not fetch images; send the image itself as a data URL (data:image/png;base64,...)",
    );
  }
  return fetchPublic(url, { ...policy, maxBytes, timeout }, signal);
}

function decodeDataUrl(url: string, maxBytes: number): Uint8Array {
  const comma = url.slice(0, maxHead).indexOf(",");
  const head = comma < 0 ? undefined : /^data:([^;,]*)((?:;[^;,]*)*)$/i.exec(url.slice(0, comma));
  if (!head) {
    throw new ImageRejectedError(
      "invalid_image_url",
      "The data URL is not valid; it should be data:image/png;base64,...",
    );
  }
  const [, type = "", parameters = ""] = head;
  if (!/^(image\/|application\/octet-stream\s*$)/i.test(type.trim())) {
    throw new ImageRejectedError("invalid_image_url", "The data URL holds no image; it should begin with data:image/");
  }
  const text = url.slice(comma + 1);
  if (!/;\s*base64\s*$/i.test(parameters)) return percentDecode(text, maxBytes);
  return base64Decode(text.includes("%") ? percentDecode(text, 2 * maxBytes).toString("latin1") : text, maxBytes);
}

function base64Decode(text: string, maxBytes: number): Uint8Array {
  // Before anything is decoded; one character in thirty may be a space or the end of a line.
  if (text.length * 30 > maxBytes * 40 + 400 + text.length) throw tooManyBytes(maxBytes);
  if (!/^[A-Za-z0-9+/\s]*={0,2}\s*$/.test(text)) {
    throw new ImageRejectedError(
      "invalid_base64",
      "The data URL says base64, but holds characters that base64 does not have",
    );
  }
  const bytes = Buffer.from(text, "base64");
  if (bytes.length > maxBytes) throw tooManyBytes(maxBytes);
  return bytes;
}

function percentDecode(text: string, maxBytes: number): Buffer {
  // Each byte is one character, or three.
  if (text.length > 3 * maxBytes) throw tooManyBytes(maxBytes);
  const bytes = Buffer.from(text);
  let length = 0;
  for (let at = 0; at < bytes.length; length++) {
    const code = bytes[at] === percent ? bytes.toString("latin1", at + 1, at + 3) : "";
    const isCode = /^[0-9a-f]{2}$/i.test(code);
    bytes[length] = isCode ? Number.parseInt(code, 16) : (bytes[at] ?? 0);
    at += isCode ? 3 : 1;
  }
  if (length > maxBytes) throw tooManyBytes(maxBytes);
  return bytes.subarray(0, length);
}

export interface ImageLimits extends ImagePolicy {
  /** Most bytes of one image, and of all that are fetched for a request together. */
  readonly maxBytes: number;
  /** Most pixels (width x height) of all images of a request together. */
  readonly maxPixels: number;
  /** Most images of a request. */
  readonly maxImages: number;
}

/** @throws ImageRefusedError that says why an image is refused; the signal's reason if it is aborted */
export async function fetchImages(
  urls: readonly string[],
  limits: ImageLimits,
  signal: AbortSignal,
): Promise<Uint8Array[]> {
  const images = await fetchAll(urls, limits, signal);
  checkPixels(await Promise.all(images.map(sizeOf)), limits.maxPixels);
  return images;
}

/** None goes on when one has failed: its request would be gone, and nothing would bound how many are fetched. */
async function fetchAll(urls: readonly string[], limits: ImageLimits, signal: AbortSignal): Promise<Uint8Array[]> {
  let fetched = 0;
  const onBytes = (bytes: number) => {
    fetched += bytes;
    if (fetched <= limits.maxBytes) return;
    const message = `The images of a request may have ${limits.maxBytes} bytes together; make them smaller first`;
    throw new ImageRejectedError("image_too_large", message);
  };
  const ending = new AbortController();
  const end = AbortSignal.any([signal, ending.signal]);
  // Each image listens, which is no leak.
  setMaxListeners(0, end);
  const fetching = urls.map((url) => fetchImage(url, { ...limits, onBytes }, end));
  try {
    return await Promise.all(fetching);
  } finally {
    ending.abort();
    await Promise.allSettled(fetching);
  }
}

function checkPixels(sizes: readonly { readonly width: number; readonly height: number }[], maxPixels: number): void {
  const pixels = sizes.reduce((sum, { width, height }) => sum + width * height, 0);
  if (pixels <= maxPixels) return;
  const listed = sizes.map(({ width, height }) => `${width} x ${height}`).join(", ");
  throw new ImageRejectedError(
    "image_too_large",
    `The images of a request may have ${maxPixels} pixels together; these have ${pixels} (${listed}). Scale them down first`,
  );
}

/** @throws OpenAiError 400 if there are too many images in a field of the request */
export function checkImageCount(urls: readonly string[], { maxImages }: ImageLimits, param: string): void {
  if (urls.length <= maxImages) return;
  throw openAiError(400, {
    message: `The request has ${urls.length} images; at most ${maxImages} are taken`,
    param,
    code: "too_many_images",
  });
}
