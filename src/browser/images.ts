/** Decodes images with the browser. */
import type { ImageSource } from "../engine/caches.ts";
import { RequestError } from "../errors.ts";
import type { Pixels } from "../images/decode.ts";

export function browserImages(): ImageSource {
  let count = 0;
  return {
    async key(image) {
      // Insecure contexts have no digests: every image counts as new.
      if (!globalThis.crypto.subtle) return `${count++}`;
      return String(new Uint8Array(await crypto.subtle.digest("SHA-256", toBytes(image))));
    },
    decode: async (image) => toPixels(await decode(toBytes(image))),
  };
}

function toBytes(image: string | Uint8Array): Uint8Array<ArrayBuffer> {
  if (typeof image === "string")
    throw new RequestError("invalid_image", "In a browser, pass an image as bytes, not as a path");
  return image as Uint8Array<ArrayBuffer>;
}

/** Applies the EXIF orientation. Colours are not converted and alpha is not premultiplied, as in Node. */
async function decode(bytes: Uint8Array<ArrayBuffer>): Promise<ImageBitmap> {
  try {
    return await createImageBitmap(new Blob([bytes]), {
      imageOrientation: "from-image",
      colorSpaceConversion: "none",
      premultiplyAlpha: "none",
    });
  } catch (cause) {
    throw new RequestError("invalid_image", "The browser cannot decode this image", { cause });
  }
}

function toPixels(bitmap: ImageBitmap): Pixels {
  const { width, height } = bitmap;
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  if (!context)
    throw new RequestError("invalid_image", `The image is too large for this browser: ${width} x ${height}`);
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
