/** The images that a client of the MCP server gives: files in allowed folders, or base64 data. */
import { realpath } from "node:fs/promises";
import { isAbsolute, parse, relative, resolve, sep } from "node:path";
import { fileURLToPath } from "node:url";
import { z } from "zod";
import type { ImageInput } from "../../engine/engine.ts";
import { describeProblem } from "../../files/errors.ts";
import { ImageError } from "../../images/decode.ts";

/** An image as a tool's input: a path, or data as in MCP's own image content. */
export const imageSchema = z
  .union(
    [
      z.string().min(1).describe("Path of an image file; absolute, or relative to the server's working directory"),
      z.object({
        data: z.string().min(1).describe("The encoded image (JPEG, PNG, WebP, GIF, TIFF, AVIF, SVG) in base64"),
        mimeType: z
          .string()
          .regex(/^image\/[\w.+-]+$/, "An image's media type begins with image/")
          .describe("For example image/jpeg"),
      }),
    ],
    { error: 'An image is the path of a file, or {"data": base64, "mimeType": "image/..."}' },
  )
  .describe("The path of an image file, or its data");

/** Where image files may lie. */
export interface ImageFolders {
  /** Relative paths begin here. */
  readonly workingDirectory: string;
  readonly allowed: readonly string[];
}

/** The image behind a tool's input. @throws ImageError if it may not be read, or its data is damaged */
export async function resolveImage(input: z.infer<typeof imageSchema>, folders: ImageFolders): Promise<ImageInput> {
  return typeof input === "string" ? allowedPath(input, folders) : bytesOfBase64(input.data);
}

/**
 * The real path of an image file, links followed.
 * @throws ImageError if it is not in an allowed folder, before anything outside of these is touched
 */
async function allowedPath(path: string, { workingDirectory, allowed }: ImageFolders): Promise<string> {
  const wanted = resolve(workingDirectory, path);
  // A folder may itself be reached through a link (/tmp on macOS), and a client may name it either way.
  const folders = [...allowed, ...(await Promise.all(allowed.map((folder) => realpath(folder).catch(() => folder))))];
  const check = (place: string, leads: string) => {
    if (folders.some((folder) => isInside(place, folder))) return;
    throw new ImageError(
      `${path} ${leads} the allowed folders (${allowed.join(", ") || "there are none"}). Give the image as base64 data, or start the server with --allow-folder`,
    );
  };
  // On Windows, only looking at a path can reach another computer.
  check(wanted, "is outside of");
  const real = await realpath(wanted).catch((cause: NodeJS.ErrnoException) => {
    throw new ImageError(`${path} cannot be read: ${describeProblem(cause)}`, { cause });
  });
  check(real, "is a link that leads out of");
  return real;
}

/** `relative` knows the system's ways, such as that letters' case does not matter on Windows. */
function isInside(path: string, folder: string): boolean {
  const way = relative(folder, path);
  return way !== ".." && !way.startsWith(`..${sep}`) && !isAbsolute(way);
}

function bytesOfBase64(data: string): Uint8Array {
  if (data.length % 4 !== 0 || !/^[A-Za-z0-9+/]+={0,2}$/.test(data)) {
    throw new ImageError("The image's data is not base64 (letters, digits, + and /, padded with = to fours)");
  }
  return Buffer.from(data, "base64");
}

/** The working directory as an allowed folder; not where it is a whole disk, as with clients that start servers in `/`. */
export function defaultFolders(workingDirectory: string): string[] {
  return parse(workingDirectory).root === workingDirectory ? [] : [workingDirectory];
}

/** The folders among a client's roots. */
export function parseRoots(roots: readonly { readonly uri: string }[]): string[] {
  return roots.flatMap(({ uri }) => {
    try {
      return [fileURLToPath(uri)];
    } catch {
      // Roots may be anything that has a URI.
      return [];
    }
  });
}
