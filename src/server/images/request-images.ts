/** Loads the images of a request from data URLs and, if allowed, from the public internet, within limits on bytes and pixels. */
import { setMaxListeners } from "node:events";
import sharp from "sharp";
import { ImageRejectedError, openAiError, tooManyBytes } from "../errors.ts";
import { type FetchPolicy, fetchPublic } from "./public-fetch.ts";

/** Signatures of the accepted formats. */
const signatures: readonly (readonly [offset: number, text: string])[] = [
  [0, "\xff\xd8\xff"],
  [0, "\x89PNG\r\n\x1a\n"],
  [0, "GIF87a"],
  [0, "GIF89a"],
  [8, "WEBP"],
  [4, "ftypavif"],
  [4, "ftypavis"],
];

/**
 * Checks the signature before any decoder reads the image. SVG is not accepted, because rendering it means running the client's
 * markup.
 *
 * @throws ImageRejectedError
 */
function checkFormat(bytes: Uint8Array): void {
  if (bytes.length === 0) throw new ImageRejectedError("invalid_image", "The image is empty.");
  const start = Buffer.from(bytes.subarray(0, 16)).toString("latin1");
  if (signatures.some(([offset, text]) => start.startsWith(text, offset))) return;
  throw new ImageRejectedError("invalid_image", "The image must be a JPEG, PNG, WebP, GIF or AVIF.");
}

/** Width and height from the image's header. @throws ImageRejectedError if it is damaged */
async function readDimensions(bytes: Uint8Array): Promise<{ readonly width: number; readonly height: number }> {
  return sharp(bytes, { limitInputPixels: false })
    .metadata()
    .catch((cause: unknown) => {
      throw new ImageRejectedError("invalid_image", "The image is damaged or truncated.", { cause });
    });
}

export interface ImagePolicy extends Partial<FetchPolicy> {
  /** Fetch http and https URLs. */
  readonly allowRemote: boolean;
}

const defaults = { maxBytes: 20 * 1024 * 1024, timeout: 10_000 };

/** Maximum length of a data URL up to its comma. */
const maxDataUrlPrefix = 256;
const percentSign = 0x25;

/**
 * Loads the encoded image of a data URL or, if the policy allows it, of an http or https URL. Never reads files.
 *
 * @throws ImageRejectedError saying what is wrong with the URL or the image; the signal's reason if it is aborted
 */
export async function fetchImage(url: string, policy: ImagePolicy, signal?: AbortSignal): Promise<Uint8Array> {
  signal?.throwIfAborted();
  const bytes = await loadUrl(url, policy, signal);
  checkFormat(bytes);
  return bytes;
}

async function loadUrl(url: string, policy: ImagePolicy, signal?: AbortSignal): Promise<Uint8Array> {
  const { maxBytes = defaults.maxBytes, timeout = defaults.timeout } = policy;
  if (/^data:/i.test(url)) return decodeDataUrl(url, maxBytes);
  if (!/^https?:/i.test(url)) {
    throw new ImageRejectedError(
      "invalid_image_url",
      "An image URL must be a data URL (data:image/png;base64,...) or begin with https: or http:.",
    );
  }
  if (!policy.allowRemote) {
    throw new ImageRejectedError(
      "invalid_image_url",
      "This server does not download images. Send the image as a data URL (data:image/png;base64,...).",
    );
  }
  return fetchPublic(url, { ...policy, maxBytes, timeout }, signal);
}

function decodeDataUrl(url: string, maxBytes: number): Uint8Array {
  const comma = url.slice(0, maxDataUrlPrefix).indexOf(",");
  const prefix = comma < 0 ? undefined : /^data:([^;,]*)((?:;[^;,]*)*)$/i.exec(url.slice(0, comma));
  if (!prefix) {
    throw new ImageRejectedError("invalid_image_url", "The data URL is invalid, expected data:image/png;base64,...");
  }
  const [, type = "", parameters = ""] = prefix;
  if (!/^(image\/|application\/octet-stream\s*$)/i.test(type.trim())) {
    throw new ImageRejectedError("invalid_image_url", "The data URL is not an image, expected data:image/...");
  }
  const text = url.slice(comma + 1);
  if (!/;\s*base64\s*$/i.test(parameters)) return percentDecode(text, maxBytes);
  return base64Decode(text.includes("%") ? percentDecode(text, 2 * maxBytes).toString("latin1") : text, maxBytes);
}

function base64Decode(text: string, maxBytes: number): Uint8Array {
  // Checked before decoding. Allows for white space in one character out of thirty.
  if (text.length * 30 > maxBytes * 40 + 400 + text.length) throw tooManyBytes(maxBytes);
  if (!/^[A-Za-z0-9+/\s]*={0,2}\s*$/.test(text)) {
    throw new ImageRejectedError("invalid_base64", "The data URL contains characters that are invalid in base64.");
  }
  const bytes = Buffer.from(text, "base64");
  if (bytes.length > maxBytes) throw tooManyBytes(maxBytes);
  return bytes;
}

function percentDecode(text: string, maxBytes: number): Buffer {
  // A byte is one character, or three if it is escaped.
  if (text.length > 3 * maxBytes) throw tooManyBytes(maxBytes);
  const bytes = Buffer.from(text);
  let length = 0;
  for (let i = 0; i < bytes.length; length++) {
    const digits = bytes[i] === percentSign ? bytes.toString("latin1", i + 1, i + 3) : "";
    const isEscape = /^[0-9a-f]{2}$/i.test(digits);
    bytes[length] = isEscape ? Number.parseInt(digits, 16) : (bytes[i] ?? 0);
    i += isEscape ? 3 : 1;
  }
  if (length > maxBytes) throw tooManyBytes(maxBytes);
  return bytes.subarray(0, length);
}

export interface ImageLimits extends ImagePolicy {
  /** Maximum size of an image, and of all downloads of a request together. */
  readonly maxBytes: number;
  /** Maximum number of pixels of all images of a request. */
  readonly maxPixels: number;
  /** Maximum number of images of a request. */
  readonly maxImages: number;
}

/** Loads all images of a request. @throws ImageRejectedError saying why an image is rejected; the signal's reason if it is aborted */
export async function fetchImages(
  urls: readonly string[],
  limits: ImageLimits,
  signal: AbortSignal,
): Promise<Uint8Array[]> {
  const images = await fetchAll(urls, limits, signal);
  checkPixels(await Promise.all(images.map(readDimensions)), limits.maxPixels);
  return images;
}

/** If one download fails the others are aborted, since nothing would bound the downloads of failed requests. */
async function fetchAll(urls: readonly string[], limits: ImageLimits, signal: AbortSignal): Promise<Uint8Array[]> {
  let fetched = 0;
  const onBytes = (bytes: number) => {
    fetched += bytes;
    if (fetched <= limits.maxBytes) return;
    const message = `The images of a request may have at most ${limits.maxBytes} bytes together. Reduce their size.`;
    throw new ImageRejectedError("image_too_large", message);
  };
  const controller = new AbortController();
  const anySignal = AbortSignal.any([signal, controller.signal]);
  // Each image adds a listener, which is not a leak.
  setMaxListeners(0, anySignal);
  const downloads = urls.map((url) => fetchImage(url, { ...limits, onBytes }, anySignal));
  try {
    return await Promise.all(downloads);
  } finally {
    controller.abort();
    await Promise.allSettled(downloads);
  }
}

function checkPixels(sizes: readonly { readonly width: number; readonly height: number }[], maxPixels: number): void {
  const pixels = sizes.reduce((sum, { width, height }) => sum + width * height, 0);
  if (pixels <= maxPixels) return;
  const listed = sizes.map(({ width, height }) => `${width} x ${height}`).join(", ");
  throw new ImageRejectedError(
    "image_too_large",
    `The images of a request may have at most ${maxPixels} pixels together, but have ${pixels} (${listed}). Scale them down.`,
  );
}

/** @throws OpenAiError 400 if there are too many images in a field of the request */
export function checkImageCount(urls: readonly string[], { maxImages }: ImageLimits, param: string): void {
  if (urls.length <= maxImages) return;
  throw openAiError(400, {
    message: `The request has ${urls.length} images, expected at most ${maxImages}.`,
    param,
    code: "too_many_images",
  });
}
