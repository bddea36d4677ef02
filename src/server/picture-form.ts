/** What of a client's picture is looked at before it is decoded: its kind, and how much it would become. */
import sharp from "sharp";
import { ImageRefusedError } from "./image-refused.ts";

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
 * Refuses what is none of a few kinds of pictures, before any decoder sees it, and what its header says is too large. SVG
 * is a program more than a picture, and what a client sends is not run.
 *
 * @param maxPixels width x height
 * @throws ImageRefusedError
 */
export async function checkPicture(bytes: Uint8Array, maxPixels: number): Promise<void> {
  if (bytes.length === 0) throw new ImageRefusedError("invalid_image", "The image is empty");
  const begin = Buffer.from(bytes.subarray(0, 16)).toString("latin1");
  if (!kinds.some(([at, text]) => begin.startsWith(text, at))) {
    throw new ImageRefusedError("invalid_image", "The image is none of JPEG, PNG, WebP, GIF and AVIF");
  }
  const { width, height } = await sharp(bytes, { limitInputPixels: false })
    .metadata()
    .catch((cause: unknown) => {
      throw new ImageRefusedError("invalid_image", "The image is damaged or cut off", { cause });
    });
  if (width * height > maxPixels) {
    throw new ImageRefusedError(
      "image_too_large",
      `The image has ${width} x ${height} pixels; at most ${maxPixels} are decoded. Scale it down first`,
    );
  }
}
