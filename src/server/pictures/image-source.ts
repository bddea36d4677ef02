/** From the URL of a picture in a request to its bytes: data URLs, and pictures of the public internet where that is allowed. */
import { ImageRefusedError, tooManyBytes } from "./image-refused.ts";
import { checkKind } from "./picture-form.ts";
import { type FetchPolicy, fetchPublic } from "./public-fetch.ts";

export interface ImagePolicy extends Partial<FetchPolicy> {
  /** Whether http and https URLs are fetched. */
  readonly allowRemote: boolean;
}

const defaults = { maxBytes: 20 * 1024 * 1024, timeout: 10_000 };

/** Longest head of a data URL, its comma included. */
const maxHead = 256;
const percent = 0x25;

/**
 * The encoded picture that a URL stands for: a data URL, or one of http and https if the policy allows that. Files of this
 * machine are never read.
 *
 * @throws ImageRefusedError that says what is wrong with the URL or the picture; the signal's reason if it is aborted
 */
export async function fetchImage(url: string, policy: ImagePolicy, signal?: AbortSignal): Promise<Uint8Array> {
  signal?.throwIfAborted();
  const bytes = await encodedPicture(url, policy, signal);
  checkKind(bytes);
  return bytes;
}

async function encodedPicture(url: string, policy: ImagePolicy, signal?: AbortSignal): Promise<Uint8Array> {
  const { maxBytes = defaults.maxBytes, timeout = defaults.timeout } = policy;
  if (/^data:/i.test(url)) return decodeDataUrl(url, maxBytes);
  if (!/^https?:/i.test(url)) {
    throw new ImageRefusedError(
      "invalid_image_url",
      "An image URL should be a data URL (data:image/png;base64,...) or begin with https: or http:",
    );
  }
  if (!policy.allowRemote) {
    throw new ImageRefusedError(
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
    throw new ImageRefusedError(
      "invalid_image_url",
      "The data URL is not valid; it should be data:image/png;base64,...",
    );
  }
  const [, type = "", parameters = ""] = head;
  if (!/^(image\/|application\/octet-stream\s*$)/i.test(type.trim())) {
    throw new ImageRefusedError("invalid_image_url", "The data URL holds no image; it should begin with data:image/");
  }
  const text = url.slice(comma + 1);
  if (!/;\s*base64\s*$/i.test(parameters)) return percentDecode(text, maxBytes);
  return base64Decode(text.includes("%") ? percentDecode(text, 2 * maxBytes).toString("latin1") : text, maxBytes);
}

function base64Decode(text: string, maxBytes: number): Uint8Array {
  // Before anything is decoded; one character in thirty may be a space or the end of a line.
  if (text.length * 30 > maxBytes * 40 + 400 + text.length) throw tooManyBytes(maxBytes);
  if (!/^[A-Za-z0-9+/\s]*={0,2}\s*$/.test(text)) {
    throw new ImageRefusedError(
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
