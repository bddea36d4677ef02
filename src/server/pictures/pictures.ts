/** The pictures of a request: fetched, and together small enough to be held and decoded. */
import { setMaxListeners } from "node:events";
import { openAiError } from "../openai-error.ts";
import { ImageRefusedError } from "./image-refused.ts";
import { fetchImage, type ImagePolicy } from "./image-source.ts";
import { sizeOf } from "./picture-form.ts";

export interface PictureLimits extends ImagePolicy {
  /** Most bytes of one picture, and of all that are fetched for a request together. */
  readonly maxBytes: number;
  /** Most pixels (width x height) of all pictures of a request together. */
  readonly maxPixels: number;
  /** Most pictures of a request. */
  readonly maxPictures: number;
}

/** @throws ImageRefusedError that says why a picture is refused; the signal's reason if it is aborted */
export async function fetchPictures(
  urls: readonly string[],
  limits: PictureLimits,
  signal: AbortSignal,
): Promise<Uint8Array[]> {
  const pictures = await fetchAll(urls, limits, signal);
  checkPixels(await Promise.all(pictures.map(sizeOf)), limits.maxPixels);
  return pictures;
}

/** None goes on when one has failed: its request would be gone, and nothing would bound how many are fetched. */
async function fetchAll(urls: readonly string[], limits: PictureLimits, signal: AbortSignal): Promise<Uint8Array[]> {
  let fetched = 0;
  const onBytes = (bytes: number) => {
    fetched += bytes;
    if (fetched <= limits.maxBytes) return;
    const message = `The images of a request may have ${limits.maxBytes} bytes together; make them smaller first`;
    throw new ImageRefusedError("image_too_large", message);
  };
  const ending = new AbortController();
  const end = AbortSignal.any([signal, ending.signal]);
  // Each picture listens, which is no leak.
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
  throw new ImageRefusedError(
    "image_too_large",
    `The images of a request may have ${maxPixels} pixels together; these have ${pixels} (${listed}). Scale them down first`,
  );
}

/** @throws OpenAiError 400 if there are too many pictures in a field of the request */
export function checkPictureCount(urls: readonly string[], { maxPictures }: PictureLimits, param: string): void {
  if (urls.length <= maxPictures) return;
  throw openAiError(400, {
    message: `The request has ${urls.length} pictures; at most ${maxPictures} are taken`,
    param,
    code: "too_many_images",
  });
}
