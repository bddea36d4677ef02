/** A record of the files that a long piece of work has finished, kept beside them, so that it goes on where it was stopped. */
import { existsSync } from "node:fs";
import { readdir, readFile, rm, stat, statfs } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { writeWhole } from "./atomic.ts";
import { sha256OfFile } from "./partial-file.ts";

const fileSchema = z.object({ bytes: z.number(), sha256: z.string() });
const schema = z.object({
  /** What is done with what; other work must not be mixed with it. */
  work: z.record(z.string(), z.unknown()),
  /** By their paths in the folder, with `/`. */
  files: z.record(z.string(), fileSchema),
  finished: z.boolean().default(false),
});

export type WrittenFile = z.infer<typeof fileSchema>;
export type JournalContents = z.infer<typeof schema>;

/** Reads a journal; undefined if there is none. @throws Error naming the file if it is damaged */
export async function readJournal(path: string): Promise<JournalContents | undefined> {
  if (!existsSync(path)) return undefined;
  try {
    return schema.parse(JSON.parse(await readFile(path, "utf8")));
  } catch (cause) {
    throw new Error(`${path} is damaged; delete it to begin anew`, { cause });
  }
}

export class Journal {
  private readonly folder: string;
  private readonly name: string;
  private contents: JournalContents;

  private constructor(folder: string, name: string, contents: JournalContents) {
    this.folder = folder;
    this.name = name;
    this.contents = contents;
  }

  /**
   * Opens the journal of a folder, which must exist; what was left half-written by the same work is removed.
   * @throws Error if the folder holds other work, or files that no journal tells of
   */
  static async open(folder: string, name: string, work: JournalContents["work"]): Promise<Journal> {
    const path = join(folder, name);
    const earlier = await readJournal(path);
    if (!earlier && (await readdir(folder)).length > 0) {
      throw new Error(`${folder} is not empty; choose another folder, or delete what is in it`);
    }
    if (earlier && JSON.stringify(earlier.work) !== JSON.stringify(work)) {
      const differing = Object.keys({ ...earlier.work, ...work }).filter(
        (key) => JSON.stringify(earlier.work[key]) !== JSON.stringify(work[key]),
      );
      throw new Error(
        `${folder} was begun with other files or options (${differing.join(", ")}); choose another folder, or delete it`,
      );
    }
    for (const file of await readdir(folder, { recursive: true })) {
      if (file.endsWith(".partial")) await rm(join(folder, file), { force: true });
    }
    const journal = new Journal(folder, name, earlier ?? { work, files: {}, finished: false });
    if (!earlier) await journal.write();
    return journal;
  }

  get finished(): boolean {
    return this.contents.finished;
  }

  /** The files that are done. */
  get files(): Readonly<Record<string, WrittenFile>> {
    return this.contents.files;
  }

  /** Whether a file is done, and still has its size. */
  async has(file: string): Promise<boolean> {
    const known = this.contents.files[file];
    if (!known) return false;
    const status = await stat(join(this.folder, file)).catch(() => undefined);
    return status?.size === known.bytes;
  }

  async record(file: string, written: WrittenFile): Promise<void> {
    this.contents = { ...this.contents, files: { ...this.contents.files, [file]: written } };
    await this.write();
  }

  /** A file is to be made again. */
  async forget(file: string): Promise<void> {
    const { [file]: _, ...files } = this.contents.files;
    this.contents = { ...this.contents, files, finished: false };
    await this.write();
  }

  async finish(): Promise<void> {
    this.contents = { ...this.contents, finished: true };
    await this.write();
  }

  private write(): Promise<void> {
    return writeWhole(join(this.folder, this.name), (file) =>
      file.writeFile(`${JSON.stringify(this.contents, null, 2)}\n`),
    );
  }
}

// Room for files that are going to be written, and whether those that were hold what was written to them.

/** Steps of long work, in bytes. */
type WorkProgress = (step: "Writing" | "Checking", done: number, total: number) => void;

export interface CheckOptions {
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: WorkProgress | undefined;
}

/** Reads again what a journal tells of. @throws Error if a file is not as it was written; it is made anew the next time */
export async function checkWritten(
  folder: string,
  journal: Journal,
  { signal, onProgress }: CheckOptions = {},
): Promise<void> {
  const files = Object.entries(journal.files);
  const total = files.reduce((sum, [, { bytes }]) => sum + bytes, 0);
  let done = 0;
  for (const [name, { bytes, sha256 }] of files) {
    const path = join(folder, name);
    if ((await sha256OfFile(path, signal)) !== sha256) {
      await journal.forget(name);
      throw new Error(`${path} does not hold what was written to it; is the disk sound? Run the same command again`);
    }
    done += bytes;
    onProgress?.("Checking", done, total);
  }
}

/** @throws Error if a folder's disk has not that many bytes left */
export async function checkSpace(folder: string, needed: number): Promise<void> {
  const { bavail, bsize } = await statfs(folder);
  const gigabytes = (bytes: number) => `${(bytes / 1e9).toFixed(1)} GB`;
  if (bavail * bsize >= needed) return;
  throw new Error(`${folder}: ${gigabytes(needed)} are needed, but the disk has ${gigabytes(bavail * bsize)} left`);
}
