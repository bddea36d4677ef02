/** The model folder that an earlier pull made or began. */
import { existsSync } from "node:fs";
import { readdir, stat } from "node:fs/promises";
import { basename, join } from "node:path";
import { type JournalContents, readJournal } from "../../checkpoints/journal.ts";
import { originOf } from "../origin.ts";
import { importJournal } from "./import.ts";
import { type PartKind, partKinds } from "./recognise.ts";
import type { ReleasedKind } from "./released.ts";

export interface PulledFolder {
  /** Whether all of it is there. */
  readonly isWhole: boolean;
  /** Of the weight files that are done. */
  readonly bytes: number;
}

/**
 * Looks at the folder that a pull is to make.
 * @param parts the files and folders that it is made of; `brought` are those that the user named
 * @throws Error if it holds something else
 */
export async function openPulled(
  path: string,
  kind: ReleasedKind,
  parts: Readonly<Record<PartKind, string>>,
  brought: Partial<Record<PartKind, string | undefined>>,
): Promise<PulledFolder> {
  const journal = await readJournal(join(path, importJournal));
  if (!journal) {
    if (existsSync(path) && (await readdir(path)).length > 0) {
      throw new Error(`${path} is not empty; choose another folder with --out, or delete what is in it`);
    }
    return { isWhole: false, bytes: 0 };
  }
  const different = await difference(journal, kind, parts, brought);
  if (different) {
    throw new Error(`${path} was made with another ${different}; choose another folder with --out, or delete it`);
  }
  const bytes = Object.values(journal.files).reduce((sum, file) => sum + file.bytes, 0);
  return { isWhole: await isWhole(path, journal), bytes };
}

/** The first thing in which the folder is not what would be made. Files that are fetched go by their names. */
async function difference(
  { work }: JournalContents,
  kind: ReleasedKind,
  parts: Readonly<Record<PartKind, string>>,
  brought: Partial<Record<PartKind, string | undefined>>,
): Promise<string | undefined> {
  if (work.precision !== (kind === "gguf" ? "as stored" : kind)) return "precision";
  for (const part of partKinds) {
    const had = work[part] as { readonly name?: unknown } | undefined;
    const isSame =
      brought[part] === undefined
        ? had?.name === basename(parts[part])
        : JSON.stringify(had) === JSON.stringify(await originOf(parts[part]));
    if (!isSame) return part;
  }
  return undefined;
}

async function isWhole(path: string, { finished, files }: JournalContents): Promise<boolean> {
  if (!finished || !existsSync(join(path, "config.json"))) return false;
  for (const [name, { bytes }] of Object.entries(files)) {
    if ((await stat(join(path, name)).catch(() => undefined))?.size !== bytes) return false;
  }
  return true;
}
