/** Any picture as a JPEG that every program reads alike. */
import sharp from "sharp";
import { readPicture } from "../images/picture.ts";

/**
 * An upright JPEG stays as it is, byte by byte. What is another format, or is turned by its EXIF orientation (which the original
 * project does not look at), becomes a new one of the pixels that the model saw.
 *
 * @param name what messages call the picture
 * @throws PictureError if it cannot be read
 */
export async function toJpeg(bytes: Uint8Array, name: string): Promise<{ bytes: Uint8Array; isCopy: boolean }> {
  if (bytes[0] === 0xff && bytes[1] === 0xd8) {
    const header = await sharp(bytes, { limitInputPixels: false })
      .metadata()
      .catch(() => undefined);
    if (header?.format === "jpeg" && (header.orientation ?? 1) === 1) return { bytes, isCopy: true };
  }
  const { width, height, data } = await readPicture(bytes, { name });
  // Without a profile it is sRGB.
  const jpeg = sharp(data, { raw: { width, height, channels: 3 } }).jpeg({ quality: 95, chromaSubsampling: "4:4:4" });
  return { bytes: await jpeg.toBuffer(), isCopy: false };
}
