/** Which file or folder something was made from, so that another one is noticed. */
import { readdir, stat } from "node:fs/promises";
import { basename, join, resolve } from "node:path";

export interface Origin {
  readonly name: string;
  /** Of a folder, all files in it together. */
  readonly bytes: number;
  /** When it was last changed, in milliseconds; of a folder, the latest of its files. */
  readonly modified: number;
}

export async function originOf(path: string): Promise<Origin> {
  const status = await stat(path);
  const files = status.isDirectory() ? (await readdir(path)).map((name) => join(path, name)) : [path];
  const all = (await Promise.all(files.map((file) => stat(file)))).filter((file) => file.isFile());
  return {
    name: basename(resolve(path)),
    bytes: all.reduce((sum, { size }) => sum + size, 0),
    modified: all.reduce((latest, { mtimeMs }) => Math.max(latest, Math.round(mtimeMs)), 0),
  };
}
