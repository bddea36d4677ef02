/** Pictures from files and from memory, as Node reads them. */
import { createHash } from "node:crypto";
import { stat } from "node:fs/promises";
import { resolve } from "node:path";
import { PictureError, type PictureLimits, readPicture } from "../../images/picture.ts";
import { QuestionError } from "./engine.ts";
import type { PictureSource } from "./image-store.ts";

export function pictureFiles(limits: PictureLimits = {}): PictureSource {
  return {
    /** A file counts as the same while its size and the time of its last change are the same. */
    async key(picture) {
      if (typeof picture !== "string") return createHash("sha256").update(picture).digest("hex");
      const info = await stat(picture).catch(() => undefined);
      return JSON.stringify([resolve(picture), info?.size, info?.mtimeMs]);
    },
    async decode(picture) {
      try {
        return await readPicture(picture, limits);
      } catch (cause) {
        if (cause instanceof PictureError) throw new QuestionError("picture", cause.message, { cause });
        throw cause;
      }
    },
  };
}
