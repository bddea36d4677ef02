/** A project's picture as a browser can show it. */
import { createHash } from "node:crypto";
import sharp from "sharp";
import type { Picture } from "../../curation/entry.ts";
import { readSpan } from "../../data/file-span.ts";
import { openAiError } from "../openai-error.ts";

export interface ShownPicture {
  readonly type: string;
  readonly bytes: Uint8Array;
}

/** What browsers show by themselves, by what it begins with. SVG is none of them: it is a program more than a picture. */
const kinds: readonly (readonly [type: string, at: number, begin: string])[] = [
  ["image/jpeg", 0, "\xff\xd8\xff"],
  ["image/png", 0, "\x89PNG\r\n\x1a\n"],
  ["image/gif", 0, "GIF87a"],
  ["image/gif", 0, "GIF89a"],
  ["image/webp", 8, "WEBP"],
  ["image/avif", 4, "ftypavif"],
];

/** Pixels of the longer side of what is decoded for a browser, and those that are decoded at most. */
const longestSide = 2048;
const maxPixels = 100_000_000;

/**
 * The bytes as they are where a browser can show them; others are decoded, scaled down and encoded anew.
 *
 * @throws OpenAiError 404 if its file is gone, holds something else than when it was added, or is no picture
 */
export async function shownPicture({ name, source, sha256 }: Picture): Promise<ShownPicture> {
  const bytes = await readSpan(source).catch(() => {
    throw openAiError(404, { message: `${name} is not where it was when it was described`, code: "picture_gone" });
  });
  // A project may come from anywhere: what it names is only given out if it is the picture that it holds.
  if (createHash("sha256").update(bytes).digest("hex") !== sha256) {
    throw openAiError(404, { message: `${name} is no longer the picture that was described`, code: "picture_changed" });
  }
  const begin = Buffer.from(bytes.subarray(0, 16)).toString("latin1");
  const type = kinds.find(([, at, text]) => begin.startsWith(text, at))?.[0];
  if (type !== undefined) return { type, bytes };
  const scaled = await sharp(bytes, { limitInputPixels: maxPixels, autoOrient: true })
    .resize({ width: longestSide, height: longestSide, fit: "inside", withoutEnlargement: true })
    .webp({ quality: 90 })
    .toBuffer()
    .catch(() => {
      throw openAiError(404, { message: `${name} is not a picture that can be read`, code: "picture_unreadable" });
    });
  return { type: "image/webp", bytes: scaled };
}
