/** A record of the files that a long piece of work has finished, kept beside them, so that it goes on where it was stopped. */
import { existsSync } from "node:fs";
import { readdir, readFile, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { writeWhole } from "./whole-file.ts";

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
