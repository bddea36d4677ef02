/** Makes what a user gives into images that can be sent: turned upright, and no larger than a model looks at. */

import type { ImageRef } from "./chat.ts";
import { newId } from "./ids.ts";

/** An image that is ready to be sent. */
export interface ReadyImage extends ImageRef {
  readonly blob: Blob;
}

const largestSide = 1024;
const quality = 0.9;
/** What servers and models read as it is; everything else is drawn anew. */
const readTypes = ["image/jpeg", "image/png", "image/webp"];
/** An image that is small already goes as it is, up to this many bytes. */
const largestKept = 1_000_000;

/** A file cannot be taken; `kind` says why. */
export class ImageProblem extends Error {
  override name = "ImageProblem";
  readonly kind: "notImage" | "unreadable";

  constructor(kind: ImageProblem["kind"], name: string) {
    super(name);
    this.kind = kind;
  }
}

/** Reads a file or a pasted image. @throws ImageProblem */
export async function readImage(file: Blob, name: string): Promise<ReadyImage> {
  // Some systems know no type for a file; what it is shows when it is read.
  if (file.type !== "" && !file.type.startsWith("image/")) throw new ImageProblem("notImage", name);
  const image = await loadImage(file).catch(() => {
    throw new ImageProblem(file.type === "" ? "notImage" : "unreadable", name);
  });
  const { naturalWidth, naturalHeight } = image;
  const size = fitWithin(naturalWidth || largestSide, naturalHeight || largestSide, largestSide);
  const unchangedView = size.width === naturalWidth && readTypes.includes(file.type) && file.size <= largestKept;
  const blob = unchangedView ? file : await draw(image, size, name);
  return { id: newId(), name, ...size, blob: new Blob([blob], { type: blob.type }) };
}

/** The size of an image when its longer side is at most `largest`, in whole pixels. */
export function fitWithin(width: number, height: number, largest: number): { width: number; height: number } {
  const scale = Math.min(1, largest / Math.max(width, height));
  return { width: Math.max(1, Math.round(width * scale)), height: Math.max(1, Math.round(height * scale)) };
}

/** An image that the browser has decoded. An element turns itself upright as its EXIF data says. */
async function loadImage(file: Blob): Promise<HTMLImageElement> {
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
  if (!context) throw new ImageProblem("unreadable", name);
  // JPEG knows no transparency; white is what most see-through images are made for.
  context.fillStyle = "#fff";
  context.fillRect(0, 0, width, height);
  context.imageSmoothingQuality = "high";
  context.drawImage(image, 0, 0, width, height);
  const blob = await new Promise<Blob | null>((resolve) => canvas.toBlob(resolve, "image/jpeg", quality));
  if (!blob) throw new ImageProblem("unreadable", name);
  return blob;
}

/** The files of a drop or a paste; none if it brought something else. */
export function filesOf(transfer: DataTransfer | null): File[] {
  return [...(transfer?.files ?? [])];
}
