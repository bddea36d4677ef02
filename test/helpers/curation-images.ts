/** Folders of images for tests. */
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import sharp from "sharp";

/** Writes `count` small images of different colours into a new folder. */
export async function paintImages(folder: string, count: number): Promise<void> {
  mkdirSync(folder);
  for (let i = 0; i < count; i++) {
    const background = { r: (i * 53) % 256, g: (i * 101) % 256, b: (i * 197) % 256 };
    const path = join(folder, `${String(i).padStart(3, "0")}.png`);
    await sharp({ create: { width: 16, height: 12, channels: 3, background } }).toFile(path);
  }
}
