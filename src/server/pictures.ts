/** The pictures of a request, fetched together. */
import { fetchImage, type ImagePolicy } from "./image-source.ts";
import { openAiError } from "./openai-error.ts";

export interface PictureLimits extends ImagePolicy {
  /** Most pictures of a request. */
  readonly maxPictures: number;
}

/** @throws ImageRefusedError that says why a picture is refused; the signal's reason if it is aborted */
export function fetchPictures(
  urls: readonly string[],
  limits: PictureLimits,
  signal: AbortSignal,
): Promise<Uint8Array[]> {
  return Promise.all(urls.map((url) => fetchImage(url, limits, signal)));
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
