/** The pictures of a request: fetched, and together small enough to be decoded. */

import { openAiError } from "../openai-error.ts";
import { fetchImage, type ImagePolicy, ImageRefusedError } from "./image-source.ts";
import { sizeOf } from "./picture-form.ts";

export interface PictureLimits extends ImagePolicy {
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
  const pictures = await Promise.all(urls.map((url) => fetchImage(url, limits, signal)));
  checkPixels(await Promise.all(pictures.map(sizeOf)), limits.maxPixels);
  return pictures;
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
