/** Images as a browser reads them. */

import type { ImageSource } from "../../src/engine/caches.ts";
import { RequestError } from "../../src/engine/engine.ts";
import type { Pixels } from "../../src/images/decode.ts";

export function browserImages(): ImageSource {
  let unnamed = 0;
  return {
    async key(image) {
      // Where the page is not secure there are no digests; each image counts as a new one then.
      if (!globalThis.crypto.subtle) return `${unnamed++}`;
      return String(new Uint8Array(await crypto.subtle.digest("SHA-256", bytesOf(image))));
    },
    decode: async (image) => pixelsOf(await bitmapOf(bytesOf(image))),
  };
}

function bytesOf(image: string | Uint8Array): Uint8Array<ArrayBuffer> {
  if (typeof image === "string") throw new RequestError("image", "In a browser an image is given by its bytes");
  return image as Uint8Array<ArrayBuffer>;
}

/** Turned upright as its EXIF data says; neither are colours converted nor is what lies behind transparency dimmed, as in Node. */
async function bitmapOf(bytes: Uint8Array<ArrayBuffer>): Promise<ImageBitmap> {
  try {
    return await createImageBitmap(new Blob([bytes]), {
      imageOrientation: "from-image",
      colorSpaceConversion: "none",
      premultiplyAlpha: "none",
    });
  } catch (cause) {
    throw new RequestError("image", "The browser cannot read this image", { cause });
  }
}

function pixelsOf(bitmap: ImageBitmap): Pixels {
  const { width, height } = bitmap;
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  if (!context) throw new RequestError("image", `The image is too large for this browser: ${width} x ${height}`);
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  const rgba = context.getImageData(0, 0, width, height).data;
  const data = new Uint8Array(width * height * 3);
  for (let from = 0, to = 0; to < data.length; from += 4, to += 3) {
    data[to] = rgba[from] as number;
    data[to + 1] = rgba[from + 1] as number;
    data[to + 2] = rgba[from + 2] as number;
  }
  return { width, height, data };
}
