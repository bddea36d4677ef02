/** Decodes images from files or bytes to upright RGB. */
import { stat } from "node:fs/promises";
import sharp, { type Metadata, type Sharp, type SharpOptions } from "sharp";
import { RequestError } from "../errors.ts";
import { describeProblem } from "../files/errors.ts";
import { bytesOf } from "../tensor/array.ts";

/** A decoded image: RGB bytes [height, width, 3]. */
export interface Pixels {
  readonly width: number;
  readonly height: number;
  readonly data: Uint8Array;
}

/** Limits for decoding an image, and its name in messages. */
export interface ImageLimits {
  /** Most pixels (width x height) of an image, checked in its header before decoding. @default 100000000 */
  maxPixels?: number;
  /** Most bytes of the encoded image. @default 268435456 */
  maxBytes?: number;
  /** Name of the image in messages. @default its path */
  name?: string;
}

/** Name in messages of an image that has neither path nor name. */
export const imageInMemory = "The image in memory";

const DEFAULT_MAX_PIXELS = 100_000_000;
const DEFAULT_MAX_BYTES = 256 * 1024 * 1024;

/** The image cannot be read. The message names the file and the reason. */
export class ImageError extends RequestError {
  constructor(message: string, options?: ErrorOptions) {
    super("invalid_image", message, options);
  }
}

/**
 * Decodes an image (JPEG, PNG, WebP, GIF, TIFF, AVIF, SVG) to RGB with 8 bits per channel.
 *
 * The EXIF orientation is applied, and an animation gives its first frame. Like Pillow's `convert("RGB")`, which the original
 * preprocessing uses, it drops transparency without blending, ignores colour profiles, and converts CMYK by arithmetic.
 *
 * @param source a path, or the encoded bytes
 * @throws ImageError if it is not an image, is truncated or damaged, cannot be read, or exceeds a limit
 */
export async function readImage(source: string | Uint8Array, limits: ImageLimits = {}): Promise<Pixels> {
  const { maxPixels = DEFAULT_MAX_PIXELS, maxBytes = DEFAULT_MAX_BYTES } = limits;
  const name = limits.name ?? (typeof source === "string" ? source : imageInMemory);
  const size = typeof source === "string" ? await fileSize(source) : source.byteLength;
  if (size === 0) throw new ImageError(`${name} is empty (0 bytes)`);
  if (size > maxBytes) {
    throw new ImageError(`${name} has ${size} bytes; the limit is ${maxBytes}. Make the file smaller first`);
  }

  // sharp's own limit is off: the header is checked here, so that the message can contain the size.
  const options: SharpOptions = { limitInputPixels: false, failOn: "error", ignoreIcc: true, autoOrient: true };
  const header = await sharp(source, options)
    .metadata()
    .catch((cause: unknown) => {
      throw new ImageError(`${name} is not an image that can be read: ${firstLine(cause)}`, { cause });
    });
  const { width, height } = header;
  if (width * height > maxPixels) {
    throw new ImageError(
      `${name} is too large: ${width} x ${height} pixels; the limit is ${maxPixels}. Scale it down first`,
    );
  }
  return decode(sharp(source, options), header).catch((cause: unknown) => {
    throw new ImageError(`${name} is damaged or truncated: ${firstLine(cause)}`, { cause });
  });
}

async function fileSize(path: string): Promise<number> {
  const info = await stat(path).catch((cause: NodeJS.ErrnoException) => {
    throw new ImageError(`${path} cannot be read: ${describeProblem(cause)}`, { cause });
  });
  if (info.isDirectory()) throw new ImageError(`${path} is a folder, not an image`);
  if (!info.isFile()) throw new ImageError(`${path} is not a regular file`);
  return info.size;
}

async function decode(image: Sharp, header: Metadata): Promise<Pixels> {
  // Outside the CMYK pipeline sharp would convert through a colour profile.
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

/** CMYK to RGB by arithmetic: R = (255 - C)(255 - K) / 255. */
function fromCmyk(data: Uint8Array, channels: number): Uint8Array {
  const rgb = new Uint8Array((data.length / channels) * 3);
  for (let from = 0, to = 0; from < data.length; from += channels, to += 3) {
    const light = 255 - (data[from + 3] ?? 0);
    for (let c = 0; c < 3; c++) rgb[to + c] = light - Math.round(((data[from + c] ?? 0) * light) / 255);
  }
  return rgb;
}

function firstLine(cause: unknown): string {
  return cause instanceof Error ? (cause.message.split("\n")[0] ?? "") : String(cause);
}
