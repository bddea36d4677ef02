/** Images from files or bytes: decoded, upright, as plain RGB. */
import { stat } from "node:fs/promises";
import sharp, { type Metadata, type Sharp, type SharpOptions } from "sharp";
import { RequestError } from "../errors.ts";
import { describeProblem } from "../files/errors.ts";
import { bytesOf } from "../tensor/array.ts";

/** A decoded image: `width * height * 3` bytes, RGB, row by row. */
export interface Pixels {
  readonly width: number;
  readonly height: number;
  readonly data: Uint8Array;
}

/** What an image may cost, and how it is called. */
export interface ImageLimits {
  /** Most pixels (width x height) of an image, checked in its header before anything is decoded. */
  maxPixels?: number;
  /** Most bytes of the encoded image. */
  maxBytes?: number;
  /** What messages call it, where it is no file. */
  name?: string;
}

/** What messages call an image that is no file and has no name. */
export const imageInMemory = "The image in memory";

const DEFAULT_MAX_PIXELS = 100_000_000;
const DEFAULT_MAX_BYTES = 256 * 1024 * 1024;

/** An image that cannot be read. The message names the file and says what is wrong with it. */
export class ImageError extends RequestError {
  constructor(message: string, options?: ErrorOptions) {
    super("invalid_image", message, options);
  }
}

/**
 * Reads an image (JPEG, PNG, WebP, GIF, TIFF, AVIF, SVG) as RGB of 8 bits a channel.
 *
 * Turned upright as its EXIF orientation says; of an animation the first frame; transparency is dropped, not blended,
 * colour profiles are ignored and CMYK is converted by arithmetic, as Pillow's `convert("RGB")` does, which the
 * original preprocesses with.
 *
 * @param source a path, or the encoded bytes
 * @throws ImageError if it is no image, is truncated or damaged, cannot be read, or exceeds a limit
 */
export async function readImage(source: string | Uint8Array, limits: ImageLimits = {}): Promise<Pixels> {
  const { maxPixels = DEFAULT_MAX_PIXELS, maxBytes = DEFAULT_MAX_BYTES } = limits;
  const name = limits.name ?? (typeof source === "string" ? source : imageInMemory);
  const size = typeof source === "string" ? await fileSize(source) : source.byteLength;
  if (size === 0) throw new ImageError(`${name} is empty (0 bytes)`);
  if (size > maxBytes) {
    throw new ImageError(`${name} has ${size} bytes; at most ${maxBytes} are read. Make the file smaller first`);
  }

  // The limit is checked on the header here, with the image's size in the message, so sharp's own is not needed.
  const options: SharpOptions = { limitInputPixels: false, failOn: "error", ignoreIcc: true, autoOrient: true };
  const header = await sharp(source, options)
    .metadata()
    .catch((cause: unknown) => {
      throw new ImageError(`${name} is not an image that can be read: ${reason(cause)}`, { cause });
    });
  const { width, height } = header;
  if (width * height > maxPixels) {
    throw new ImageError(
      `${name} is too large: ${width} x ${height} pixels; at most ${maxPixels} are decoded. Scale it down first`,
    );
  }
  return decode(sharp(source, options), header).catch((cause: unknown) => {
    throw new ImageError(`${name} is damaged or cut off: ${reason(cause)}`, { cause });
  });
}

async function fileSize(path: string): Promise<number> {
  const info = await stat(path).catch((cause: NodeJS.ErrnoException) => {
    throw new ImageError(`${path} cannot be read: ${describeProblem(cause)}`, { cause });
  });
  if (info.isDirectory()) throw new ImageError(`${path} is a folder, not an image`);
  if (!info.isFile()) throw new ImageError(`${path} is not a plain file`);
  return info.size;
}

async function decode(image: Sharp, header: Metadata): Promise<Pixels> {
  // Without its own pipeline a CMYK image would be converted through a colour profile.
  const cmyk = header.space === "cmyk";
  const converted = cmyk
    ? image.pipelineColourspace("cmyk").toColourspace("cmyk")
    : image.removeAlpha().toColourspace("srgb");
  const { data, info } = await converted.raw({ depth: "uchar" }).toBuffer({ resolveWithObject: true });
  const rgb = cmyk ? fromCmyk(data, info.channels) : toThreeChannels(bytesOf(data), info.channels);
  return { width: info.width, height: info.height, data: rgb };
}

function toThreeChannels(data: Uint8Array, channels: number): Uint8Array {
  if (channels === 3) return data;
  const rgb = new Uint8Array((data.length / channels) * 3);
  for (let from = 0, to = 0; from < data.length; from += channels, to += 3) {
    rgb.fill(data[from] ?? 0, to, to + 3);
  }
  return rgb;
}

/** Ink to light, each colour scaled by what black leaves of it: R = (255 - C)(255 - K) / 255. */
function fromCmyk(data: Uint8Array, channels: number): Uint8Array {
  const rgb = new Uint8Array((data.length / channels) * 3);
  for (let from = 0, to = 0; from < data.length; from += channels, to += 3) {
    const light = 255 - (data[from + 3] ?? 0);
    for (let c = 0; c < 3; c++) rgb[to + c] = light - Math.round(((data[from + c] ?? 0) * light) / 255);
  }
  return rgb;
}

function reason(cause: unknown): string {
  return cause instanceof Error ? (cause.message.split("\n")[0] ?? "") : String(cause);
}
