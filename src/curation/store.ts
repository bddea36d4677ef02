/**
 * A curation project: one SQLite file with all images, all versions of their texts, and the verdicts of rules and persons. Several
 * processes can have it open at the same time. Nothing is overwritten: the latest row is the current one.
 */
import { existsSync } from "node:fs";
import { dirname } from "node:path";
import Database from "libsql";
import { groupBy, lastAction, type VerdictMade, type VersionMade } from "./decisions.ts";
import {
  type Action,
  type Entry,
  type ImageRow,
  type NewImage,
  type NewVerdict,
  type NewVersion,
  StaleVersionError,
  toEntry,
  toVerdict,
  toVersion,
  type Verdict,
  type VerdictRow,
  type Version,
  type VersionKind,
  type VersionRow,
} from "./entry.ts";
import { atomically, migrate } from "./schema.ts";

/** How long to wait for another process that writes, in milliseconds. */
const busyTimeout = 10_000;

/** An open curation project. */
export class CurationStore {
  private readonly database: Database.Database;
  private readonly path: string;

  private constructor(database: Database.Database, path: string) {
    this.database = database;
    this.path = path;
  }

  /**
   * Opens a project and migrates its tables.
   *
   * @param create whether to create a missing file; `@default` false
   * @throws Error naming the file and what is wrong with it
   */
  static open(path: string, { create = false }: { readonly create?: boolean } = {}): CurationStore {
    if (!existsSync(path)) {
      if (!create) throw new Error(`${path} does not exist; create a project with \`minigpt4 curate describe DATA\``);
      if (!existsSync(dirname(path))) throw new Error(`The folder of the project, ${dirname(path)}, does not exist`);
    }
    let database: Database.Database | undefined;
    try {
      database = new Database(path);
      database.exec(`PRAGMA busy_timeout = ${busyTimeout}; PRAGMA foreign_keys = ON;`);
      migrate(database, path);
      // This changes the file, so it comes after the check that the file is a project.
      database.exec("PRAGMA journal_mode = WAL");
      return new CurationStore(database, path);
    } catch (cause) {
      database?.close();
      throw explainError(cause, path);
    }
  }

  /** Adds the images that the project does not have. @returns the number of added images */
  addImages(images: readonly NewImage[]): number {
    const insert = this.database.prepare(
      `INSERT INTO images (path, offset, length, name, sha256, added_at) VALUES (?, ?, ?, ?, ?, ?)
       ON CONFLICT (sha256) DO NOTHING`,
    );
    return this.atomically(() => {
      let added = 0;
      for (const { name, source, sha256 } of images) {
        const { path, range } = source;
        added += insert.run(path, range?.offset ?? null, range?.length ?? null, name, sha256, Date.now()).changes;
      }
      return added;
    });
  }

  /**
   * Adds a version, which becomes the current one.
   *
   * @throws StaleVersionError if its parent is not the current version
   */
  addVersion({ image, parent, kind, text, author, prompt, details = {} }: NewVersion): Version {
    return this.atomically(() => {
      const current = this.currentOf(image);
      if (current?.id !== parent) throw new StaleVersionError(current);
      return this.insertVersion({ image, parent, kind, text, author, prompt, details });
    });
  }

  /** Adds a verdict. @throws StaleVersionError if it is a person's and its version is no longer current */
  addVerdict({ version, decision, judge, author, reasons = [] }: NewVerdict): void {
    this.atomically(() => {
      const judged = this.database.prepare("SELECT image FROM versions WHERE id = ?").get(version);
      if (!judged) throw new Error(`Version ${version} does not exist`);
      const current = this.currentOf((judged as { image: number }).image);
      if (judge === "person" && current?.id !== version) throw new StaleVersionError(current);
      this.insertVerdict({ version, decision, judge, author, reasons });
    });
  }

  /**
   * Undoes the last action of a person: withdraws the verdict, or restores the text before the edit as a new version.
   *
   * @param only undo only this action
   * @returns id of the image; undefined if there is nothing to undo
   * @throws StaleVersionError if someone has changed the edited text since
   */
  undo(author: string, only?: Action): number | undefined {
    return this.atomically(() => {
      const action = lastAction(
        this.rows<VerdictMade>(
          `SELECT image, version, decision, verdicts.made_at AS madeAt FROM verdicts JOIN versions ON versions.id = version
           WHERE judge = 'person' AND verdicts.author = ? ORDER BY verdicts.id`,
          author,
        ),
        this.rows<VersionMade & { undoes: number | null }>(
          `SELECT image, id, details ->> '$.undoes' AS undoes, made_at AS madeAt FROM versions
           WHERE author = ? AND (kind = 'edited' OR undoes IS NOT NULL) ORDER BY id`,
          author,
        ).map(({ undoes, ...made }) => ({ ...made, undoes: undoes ?? undefined })),
      );
      if (!action || (only && (only.image !== action.image || only.kind !== action.kind))) return undefined;
      const { image } = action;
      const current = this.currentOf(image);
      if (action.kind !== "edit") {
        this.insertVerdict({ version: current?.id ?? 0, decision: "withdrawn", judge: "person", author });
        return image;
      }
      if (current?.id !== action.version) throw new StaleVersionError(current);
      const before = this.versions(image).find(({ id }) => id === current.parent);
      if (!before) return undefined;
      const { kind, text } = before;
      const details = { undoes: current.id };
      const back = this.insertVersion({ image, parent: current.id, kind, text, author, details });
      // The verdict of the rules on this text still applies.
      const rules = this.verdicts(image).findLast(({ judge, version }) => judge === "rules" && version === before.id);
      if (rules) this.insertVerdict({ ...rules, version: back.id });
      return image;
    });
  }

  /** Records that a step failed for an image. */
  addFailure(image: number, step: string, message: string): void {
    this.atomically(() =>
      this.database
        .prepare("INSERT INTO failures (image, step, message, made_at) VALUES (?, ?, ?, ?)")
        .run(image, step, message, Date.now()),
    );
  }

  /** By image: how many times a step has failed since the text last changed, and the last message. */
  failures(step: string): Map<number, { readonly times: number; readonly message: string }> {
    const rows = this.database
      .prepare(
        // SQLite takes bare columns next to max(id) from the row of the maximum.
        `SELECT image, count(*) AS times, max(id), message
         FROM failures
         WHERE step = ? AND made_at >= coalesce((SELECT max(made_at) FROM versions WHERE versions.image = failures.image), 0)
         GROUP BY image`,
      )
      .all(step) as { image: number; times: number; message: string }[];
    return new Map(rows.map(({ image, times, message }) => [image, { times, message }]));
  }

  /** Sums the prompt and completion tokens of all versions of a kind whose details contain them. */
  countTokens(kind: VersionKind): number {
    const [row] = this.rows<{ tokens: number }>(
      `SELECT coalesce(sum(
         coalesce(json_extract(details, '$.promptTokens'), 0) + coalesce(json_extract(details, '$.completionTokens'), 0)
       ), 0) AS tokens
       FROM versions WHERE kind = ?`,
      kind,
    );
    return row?.tokens ?? 0;
  }

  /** All entries, in the order in which the images were added. */
  entries(): Entry[] {
    const versions = groupBy(this.rows<VersionRow>("SELECT * FROM versions ORDER BY id"), ({ image }) => image);
    const verdicts = groupBy(
      this.rows<VerdictRow & { image: number }>(
        `SELECT verdicts.*, versions.image FROM verdicts JOIN versions ON versions.id = verdicts.version ORDER BY verdicts.id`,
      ),
      ({ image }) => image,
    );
    return this.rows<ImageRow>("SELECT * FROM images ORDER BY id").map((row) =>
      toEntry(row, versions.get(row.id) ?? [], verdicts.get(row.id) ?? []),
    );
  }

  /** The entry of an image; undefined if the id does not exist. */
  entry(image: number): Entry | undefined {
    const [row] = this.rows<ImageRow>("SELECT * FROM images WHERE id = ?", image);
    if (!row) return undefined;
    return toEntry(
      row,
      this.rows<VersionRow>("SELECT * FROM versions WHERE image = ? ORDER BY id", image),
      this.rows<VerdictRow>(
        `SELECT verdicts.* FROM verdicts JOIN versions ON versions.id = verdicts.version
         WHERE versions.image = ? ORDER BY verdicts.id`,
        image,
      ),
    );
  }

  /** All versions of an image's text, oldest first. */
  versions(image: number): Version[] {
    return this.rows<VersionRow>("SELECT * FROM versions WHERE image = ? ORDER BY id", image).map(toVersion);
  }

  /** All verdicts on all versions of an image's text, oldest first. */
  verdicts(image: number): Verdict[] {
    return this.rows<VerdictRow>(
      `SELECT verdicts.* FROM verdicts JOIN versions ON versions.id = verdicts.version
       WHERE versions.image = ? ORDER BY verdicts.id`,
      image,
    ).map(toVerdict);
  }

  /** A number that changes whenever another process or another store changes the project. */
  changesOfOthers(): number {
    return this.rows<{ version: number }>("SELECT data_version AS version FROM pragma_data_version")[0]?.version ?? 0;
  }

  close(): void {
    this.database.close();
  }

  private insertVersion({ image, parent, kind, text, author, prompt, details = {} }: NewVersion): Version {
    this.database
      .prepare(
        `INSERT INTO versions (image, parent, kind, text, author, prompt, details, made_at)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
      )
      // SQLite truncates a text at a null character.
      .run(
        image,
        parent ?? null,
        kind,
        text.replaceAll("\0", "\ufffd"),
        author,
        prompt ?? null,
        JSON.stringify(details),
        Date.now(),
      );
    return this.currentOf(image) as Version;
  }

  private insertVerdict({ version, decision, judge, author, reasons = [] }: NewVerdict): void {
    this.database
      .prepare("INSERT INTO verdicts (version, decision, judge, author, reasons, made_at) VALUES (?, ?, ?, ?, ?, ?)")
      .run(version, decision, judge, author, JSON.stringify(reasons), Date.now());
  }

  private currentOf(image: number): Version | undefined {
    const [row] = this.rows<VersionRow>("SELECT * FROM versions WHERE image = ? ORDER BY id DESC LIMIT 1", image);
    return row && toVersion(row);
  }

  private rows<Row>(query: string, ...values: readonly unknown[]): Row[] {
    return this.database.prepare(query).all(...values) as Row[];
  }

  private atomically<T>(work: () => T): T {
    return atomically(this.database, this.path, work);
  }
}

/** Names the file in errors of SQLite. */
function explainError(cause: unknown, path: string): Error {
  const error = cause instanceof Error ? cause : new Error(String(cause));
  const { code } = error as { code?: unknown };
  if (code === "SQLITE_NOTADB" || code === "SQLITE_CORRUPT") {
    return new Error(`${path} is not a curation project, or is corrupted: ${error.message}`, { cause });
  }
  if (typeof code !== "string" || !code.startsWith("SQLITE")) return error;
  const hint = code.startsWith("SQLITE_IOERR") ? " (is the disk full or disconnected?)" : "";
  return new Error(`${path} cannot be opened: ${error.message}${hint}`, { cause });
}
