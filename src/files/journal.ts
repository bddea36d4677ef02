/** A record of the files that a long job has finished, kept in its folder, so that an interrupted job resumes. */
import { existsSync } from "node:fs";
import { readdir, rm, stat, statfs } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import type { WrittenFile } from "./atomic.ts";
import { sha256File } from "./digest.ts";
import { readJsonFile, writeJsonFile } from "./json-file.ts";

const schema = z.object({
  /** Inputs and options of the job; another job must not write to the same folder. */
  work: z.record(z.string(), z.unknown()),
  /** By path in the folder, with `/`. */
  files: z.record(z.string(), z.object({ bytes: z.number(), sha256: z.string() })),
  finished: z.boolean().default(false),
});

export type JournalContents = z.infer<typeof schema>;

/** Reads a journal; undefined if it does not exist. @throws Error naming the file if it is damaged */
export async function readJournal(path: string): Promise<JournalContents | undefined> {
  if (!existsSync(path)) return undefined;
  try {
    return await readJsonFile(path, schema);
  } catch (cause) {
    throw new Error(`${path} is damaged. Delete it to start again`, { cause });
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
   * Opens the journal of a folder, which must exist, and deletes files that an interrupted run of the same job left half-written.
   * @throws Error if the folder belongs to another job, or has files but no journal
   */
  static async open(folder: string, name: string, work: JournalContents["work"]): Promise<Journal> {
    const earlier = await readJournal(join(folder, name));
    if (!earlier && (await readdir(folder)).length > 0) {
      throw new Error(`${folder} is not empty. Choose another folder, or delete its contents`);
    }
    if (earlier && JSON.stringify(earlier.work) !== JSON.stringify(work)) {
      const different = Object.keys({ ...earlier.work, ...work }).filter(
        (key) => JSON.stringify(earlier.work[key]) !== JSON.stringify(work[key]),
      );
      throw new Error(
        `${folder} was started with different files or options (${different.join(", ")}). Choose another folder, or delete it`,
      );
    }
    // Only this job writes here, so that the age of a file does not matter.
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

  /** The finished files. */
  get files(): Readonly<Record<string, WrittenFile>> {
    return this.contents.files;
  }

  /** Whether a file is finished and still has its size. */
  async has(file: string): Promise<boolean> {
    const recorded = this.contents.files[file];
    if (!recorded) return false;
    const status = await stat(join(this.folder, file)).catch(() => undefined);
    return status?.size === recorded.bytes;
  }

  async record(file: string, written: WrittenFile): Promise<void> {
    this.contents = { ...this.contents, files: { ...this.contents.files, [file]: written } };
    await this.write();
  }

  /** Has a file written again the next time. */
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
    return writeJsonFile(join(this.folder, this.name), this.contents);
  }
}

export interface VerifyOptions {
  readonly signal?: AbortSignal;
  /** Steps of the job, in bytes. */
  readonly onProgress?: (step: "Writing" | "Checking", done: number, total: number) => void;
}

/** Compares the files of a journal with their digests. @throws Error if one is wrong; it is written again the next time */
export async function verifyFiles(
  folder: string,
  journal: Journal,
  { signal, onProgress }: VerifyOptions = {},
): Promise<void> {
  const files = Object.entries(journal.files);
  const total = files.reduce((sum, [, { bytes }]) => sum + bytes, 0);
  let done = 0;
  for (const [name, { bytes, sha256 }] of files) {
    const path = join(folder, name);
    if ((await sha256File(path, { signal })) !== sha256) {
      await journal.forget(name);
      throw new Error(
        `${path} does not contain what was written to it; is the disk faulty? Run the same command again`,
      );
    }
    done += bytes;
    onProgress?.("Checking", done, total);
  }
}

/** @throws Error if the disk of a folder has less free space than `needed` bytes */
export async function checkDiskSpace(folder: string, needed: number): Promise<void> {
  const { bavail, bsize } = await statfs(folder);
  const free = bavail * bsize;
  const gigabytes = (bytes: number) => `${(bytes / 1e9).toFixed(1)} GB`;
  if (free >= needed) return;
  throw new Error(`${folder}: ${gigabytes(needed)} needed, but only ${gigabytes(free)} free on this disk`);
}
