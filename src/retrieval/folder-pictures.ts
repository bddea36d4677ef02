/** The picture files of a folder and of those below it, as they are now. */
import { stat } from "node:fs/promises";
import { relative, sep } from "node:path";
import type { Problem } from "../data/dataset.ts";
import { pictureFiles } from "../data/layouts/pictures.ts";

export interface FolderPicture {
  readonly path: string;
  /** Its path below the folder, with "/" between its parts. */
  readonly name: string;
  readonly bytes: number;
  /** When it was changed last; null where it may change again without a later time, as file systems count in steps. */
  readonly modifiedMs: number | null;
}

/** The coarsest steps of a file system in use (FAT), in milliseconds. */
const coarsestTime = 2000;
/** Files that are asked for side by side. */
const atOnce = 256;

/** The pictures by name, and what cannot be read. @throws Error if the folder itself cannot be read */
export async function listFolder(folder: string): Promise<{ pictures: FolderPicture[]; problems: Problem[] }> {
  if (!(await stat(folder)).isDirectory()) throw new Error(`${folder} is no folder`);
  const paths: string[] = [];
  const problems: Problem[] = [];
  for await (const found of pictureFiles(folder)) {
    if ("path" in found) paths.push(found.path);
    else if (found.name === folder) throw new Error(`${folder} ${found.reason}`);
    else problems.push(found);
  }
  const pictures: FolderPicture[] = [];
  const now = Date.now();
  for (let start = 0; start < paths.length; start += atOnce) {
    const batch = paths.slice(start, start + atOnce);
    const entries = await Promise.all(batch.map((path) => stat(path).catch((cause: Error) => cause)));
    batch.forEach((path, i) => {
      const name = relative(folder, path).replaceAll(sep, "/");
      const entry = entries[i];
      // A name that ends like a picture's may be anything: a link to a folder, a pipe that would never end.
      if (entry instanceof Error) problems.push({ name, reason: `cannot be read: ${entry.message}` });
      else if (entry?.isFile()) {
        const isSettled = entry.mtimeMs < now - coarsestTime;
        pictures.push({ path, name, bytes: entry.size, modifiedMs: isSettled ? entry.mtimeMs : null });
      }
    });
  }
  return { pictures, problems };
}
