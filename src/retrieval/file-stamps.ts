/** Files of weights, by which it is known again with what an index was made. */
import { stat } from "node:fs/promises";
import { resolve } from "node:path";
import { z } from "zod";
import { sha256OfFile } from "../checkpoints/partial-file.ts";

/** How a file is known to be untouched without being read: packages give their files one date, but the system notes each change. */
const fileStampSchema = z.object({ path: z.string(), bytes: z.number(), changedMs: z.number() });
export type FileStamp = z.infer<typeof fileStampSchema>;

export const hashedFileSchema = fileStampSchema.extend({ sha256: z.string() });
export type HashedFile = z.infer<typeof hashedFileSchema>;

export async function stampFiles(paths: readonly string[]): Promise<FileStamp[]> {
  return Promise.all(
    paths.map(async (path) => {
      const { size, ctimeMs } = await stat(path);
      return { path: resolve(path), bytes: size, changedMs: ctimeMs };
    }),
  );
}

/** The files with their hashes, which are not computed again for those that are as they were. @param known from an earlier time */
export async function hashFiles(
  paths: readonly string[],
  known: readonly HashedFile[] = [],
  signal?: AbortSignal,
): Promise<HashedFile[]> {
  const hashed: HashedFile[] = [];
  for (const stamp of await stampFiles(paths)) {
    const { path, bytes, changedMs } = stamp;
    const same = known.find((file) => file.path === path && file.bytes === bytes && file.changedMs === changedMs);
    hashed.push(same ?? { ...stamp, sha256: await sha256OfFile(path, signal) });
  }
  return hashed;
}
