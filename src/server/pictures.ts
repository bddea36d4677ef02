/** The pictures of a request: fetched, and small enough to be decoded. */
import sharp from "sharp";
import { fetchImage, type ImagePolicy, ImageRefusedError } from "./image-source.ts";

export interface PictureLimits extends ImagePolicy {
  /** Most pixels (width x height) of a picture, as its header says. */
  readonly maxPixels: number;
  /** Most pictures of a request. */
  readonly maxPictures: number;
}

/** @throws ImageRefusedError that says which picture is refused and why; the signal's reason if it is aborted */
export function fetchPictures(
  urls: readonly string[],
  limits: PictureLimits,
  signal: AbortSignal,
): Promise<Uint8Array[]> {
  return Promise.all(
    urls.map(async (url) => {
      const bytes = await fetchImage(url, limits, signal);
      await checkPixels(bytes, limits.maxPixels);
      return bytes;
    }),
  );
}

async function checkPixels(bytes: Uint8Array, maxPixels: number): Promise<void> {
  const { width, height } = await sharp(bytes, { limitInputPixels: false })
    .metadata()
    .catch((cause: unknown) => {
      throw new ImageRefusedError("invalid_image", "The image is damaged or cut off", { cause });
    });
  if (width * height <= maxPixels) return;
  throw new ImageRefusedError(
    "image_too_large",
    `The image has ${width} x ${height} pixels; at most ${maxPixels} are taken. Scale it down first`,
  );
}
