/** Prepares images for upload (orientation, size, format), and lists the example images. */
import sources from "../../examples/images/SOURCES.md?raw";
import { type ImageRef, newId } from "./chat.ts";

/** An image that is ready to send. */
export interface PreparedImage extends ImageRef {
  readonly blob: Blob;
}

/** In pixels; models see less. */
const maxSide = 1024;
const jpegQuality = 0.9;
/** Types that are sent unchanged; others are converted to JPEG. */
const supportedTypes = ["image/jpeg", "image/png", "image/webp"];
/** Images within `maxSide` are sent unchanged up to this size. */
const maxUnchangedBytes = 1_000_000;

/** A file is not an image, or cannot be decoded. */
export class ImageError extends Error {
  override name = "ImageError";
  readonly kind: "notImage" | "unreadable";

  constructor(kind: ImageError["kind"], name: string) {
    super(name);
    this.kind = kind;
  }
}

/** Applies the EXIF orientation, and scales an image down to `maxSide` if it is larger. @throws ImageError */
export async function prepareImage(file: Blob, name: string): Promise<PreparedImage> {
  // A file without a type may still be an image: decoding tells.
  if (file.type !== "" && !file.type.startsWith("image/")) throw new ImageError("notImage", name);
  const image = await decode(file).catch(() => {
    throw new ImageError(file.type === "" ? "notImage" : "unreadable", name);
  });
  const { naturalWidth, naturalHeight } = image;
  const size = fitWithin(naturalWidth || maxSide, naturalHeight || maxSide, maxSide);
  const unchanged = size.width === naturalWidth && supportedTypes.includes(file.type) && file.size <= maxUnchangedBytes;
  const blob = unchanged ? file : await draw(image, size, name);
  return { id: newId(), name, ...size, blob: new Blob([blob], { type: blob.type }) };
}

/** The size in whole pixels after scaling the longer side down to at most `max`. */
export function fitWithin(width: number, height: number, max: number): { width: number; height: number } {
  const scale = Math.min(1, max / Math.max(width, height));
  return { width: Math.max(1, Math.round(width * scale)), height: Math.max(1, Math.round(height * scale)) };
}

/** Decodes an image. An image element applies the EXIF orientation. */
async function decode(file: Blob): Promise<HTMLImageElement> {
  const url = URL.createObjectURL(file);
  try {
    const image = new Image();
    image.src = url;
    await image.decode();
    return image;
  } finally {
    URL.revokeObjectURL(url);
  }
}

async function draw(
  image: HTMLImageElement,
  { width, height }: { width: number; height: number },
  name: string,
): Promise<Blob> {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d");
  if (!context) throw new ImageError("unreadable", name);
  // JPEG has no transparency: use a white background.
  context.fillStyle = "#fff";
  context.fillRect(0, 0, width, height);
  context.imageSmoothingQuality = "high";
  context.drawImage(image, 0, 0, width, height);
  const blob = await new Promise<Blob | null>((resolve) => canvas.toBlob(resolve, "image/jpeg", jpegQuality));
  if (!blob) throw new ImageError("unreadable", name);
  return blob;
}

/** The files of a drop or paste, if any. */
export function transferredFiles(transfer: DataTransfer | null): File[] {
  return [...(transfer?.files ?? [])];
}

/** An example image that comes with the project. */
export interface Example {
  readonly name: string;
  readonly url: string;
  readonly description: string;
  readonly source: string;
}

const urls = import.meta.glob<string>("../../examples/images/*.jpg", {
  eager: true,
  query: "?url",
  import: "default",
});

/** Parses the table in SOURCES.md: file, description, source and licence. */
function readSources(markdown: string): { name: string; description: string; source: string }[] {
  return [...markdown.matchAll(/^\|\s*`([^`]+)`\s*\|\s*(.+?)\s*\|\s*(.+?)\s*\|\s*$/gm)].map(
    ([, name = "", description = "", source = ""]) => ({ name, description, source: source.replaceAll("`", "") }),
  );
}

/** The example images that have an entry in SOURCES.md. */
export const examples: readonly Example[] = readSources(sources).flatMap((row) => {
  const url = urls[`../../examples/images/${row.name}`];
  return url ? [{ ...row, url }] : [];
});
