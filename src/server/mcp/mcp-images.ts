/** Images of MCP clients: files in allowed folders, or base64 data. */
import { realpath } from "node:fs/promises";
import { isAbsolute, parse, relative, resolve, sep } from "node:path";
import { fileURLToPath } from "node:url";
import { z } from "zod";
import type { ImageInput } from "../../engine/engine.ts";
import { describeProblem, quote } from "../../files/errors.ts";
import { ImageError } from "../../images/decode.ts";

/** Tool input for an image: a path, or data in the format of MCP's image content. */
export const imageSchema = z
  .union(
    [
      z.string().min(1).describe("Path of an image file; absolute, or relative to the server's working directory"),
      z.object({
        data: z.string().min(1).describe("The encoded image (JPEG, PNG, WebP, GIF, TIFF, AVIF, SVG) in base64"),
        mimeType: z
          .string()
          .regex(/^image\/[\w.+-]+$/, "expected a media type that begins with image/")
          .describe("For example image/jpeg"),
      }),
    ],
    { error: 'expected the path of an image file, or {"data": base64, "mimeType": "image/..."}' },
  )
  .describe("The path of an image file, or its data");

export interface ImageFolders {
  /** Base of relative paths. */
  readonly workingDirectory: string;
  /** Folders whose images may be read. */
  readonly allowed: readonly string[];
}

/** Resolves a tool's input to an image. @throws ImageError if the file may not be read, or the data is invalid */
export async function resolveImage(input: z.infer<typeof imageSchema>, folders: ImageFolders): Promise<ImageInput> {
  return typeof input === "string" ? allowedPath(input, folders) : decodeBase64(input.data);
}

/**
 * Resolves links to the real path of an image file.
 * @throws ImageError if it is outside the allowed folders, before the file system outside of them is accessed
 */
async function allowedPath(path: string, { workingDirectory, allowed }: ImageFolders): Promise<string> {
  const absolute = resolve(workingDirectory, path);
  const shown = quote(path);
  // An allowed folder may itself be a link (/tmp on macOS), and a client may use either path.
  const folders = [...allowed, ...(await Promise.all(allowed.map((folder) => realpath(folder).catch(() => folder))))];
  const check = (candidate: string, problem: string) => {
    if (folders.some((folder) => isInside(candidate, folder))) return;
    throw new ImageError(
      `${shown} ${problem} the allowed folders (${allowed.join(", ") || "none"}). Pass the image as base64 data, or start the server with --allow-folder.`,
    );
  };
  // Checked before realpath, because on Windows even resolving a path can contact another computer.
  check(absolute, "is outside");
  const real = await realpath(absolute).catch((cause: NodeJS.ErrnoException) => {
    throw new ImageError(`Cannot read ${shown}: ${describeProblem(cause)}`, { cause });
  });
  check(real, "is a link to a file outside");
  return real;
}

/** Uses `relative`, which follows the rules of the system, such as case-insensitive paths on Windows. */
function isInside(path: string, folder: string): boolean {
  const between = relative(folder, path);
  return between !== ".." && !between.startsWith(`..${sep}`) && !isAbsolute(between);
}

function decodeBase64(data: string): Uint8Array {
  if (data.length % 4 !== 0 || !/^[A-Za-z0-9+/]+={0,2}$/.test(data)) {
    throw new ImageError(
      "The image data is not valid base64 (A-Z, a-z, 0-9, + and /, padded with = to a multiple of 4).",
    );
  }
  return Buffer.from(data, "base64");
}

/** The working directory, unless it is a file system root, as with clients that start servers in `/`. */
export function defaultFolders(workingDirectory: string): string[] {
  return parse(workingDirectory).root === workingDirectory ? [] : [workingDirectory];
}

/** The local folders among a client's roots. */
export function parseRoots(roots: readonly { readonly uri: string }[]): string[] {
  return roots.flatMap(({ uri }) => {
    try {
      return [fileURLToPath(uri)];
    } catch {
      // Not a file: a root may have any URI.
      return [];
    }
  });
}
