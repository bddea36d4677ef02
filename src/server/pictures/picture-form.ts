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
 * Refuses what is none of a few kinds of pictures, before any decoder sees it. SVG is a program more than a picture, and
 * what a client sends is not run.
 *
 * @throws ImageRefusedError
 */
export function checkKind(bytes: Uint8Array): void {
  if (bytes.length === 0) throw new ImageRefusedError("invalid_image", "The image is empty");
  const begin = Buffer.from(bytes.subarray(0, 16)).toString("latin1");
  if (kinds.some(([at, text]) => begin.startsWith(text, at))) return;
  throw new ImageRefusedError("invalid_image", "The image is none of JPEG, PNG, WebP, GIF and AVIF");
}

/** Width and height, as the header says. @throws ImageRefusedError if it is damaged */
export async function sizeOf(bytes: Uint8Array): Promise<{ readonly width: number; readonly height: number }> {
  return sharp(bytes, { limitInputPixels: false })
    .metadata()
    .catch((cause: unknown) => {
      throw new ImageRefusedError("invalid_image", "The image is damaged or cut off", { cause });
    });
}
