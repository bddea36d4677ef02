/** A record of a released model's files beside them: a part that is complete needs no server any more. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { isFetched } from "../../checkpoints/remote-file.ts";
import { writeWhole } from "../../checkpoints/whole-file.ts";
import { type PartKind, partKinds } from "./recognise.ts";
import type { ReleasedFile } from "./released-files.ts";

const record = "files.json";
const schema = z.array(
  z.object({
    part: z.enum(partKinds),
    name: z.string(),
    url: z.string(),
    license: z.string(),
    bytes: z.number(),
    digest: z.object({ algorithm: z.enum(["sha256", "md5", "git-blob"]), hex: z.string() }).optional(),
  }),
);

/** Writes down what belongs into a folder, which must exist. */
export async function recordFiles(folder: string, files: readonly ReleasedFile[]): Promise<void> {
  await writeWhole(join(folder, record), (file) => file.writeFile(`${JSON.stringify(files, null, 2)}\n`));
}

/** The files of the parts of which all are there. */
export async function completeParts(folder: string): Promise<Map<PartKind, ReleasedFile[]>> {
  const parts = new Map<PartKind, ReleasedFile[]>();
  for (const file of await readRecord(join(folder, record))) {
    parts.set(file.part, [...(parts.get(file.part) ?? []), file]);
  }
  for (const [part, files] of parts) {
    for (const file of files) if (!(await isFetched(file, join(folder, file.name)))) parts.delete(part);
  }
  return parts;
}

/** No record, or a damaged one, tells of no files: the servers are asked then. */
async function readRecord(path: string): Promise<ReleasedFile[]> {
  try {
    return schema.parse(JSON.parse(await readFile(path, "utf8"))).map((file) => ({ ...file, digest: file.digest }));
  } catch {
    return [];
  }
}
