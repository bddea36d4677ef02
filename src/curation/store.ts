/**
 * A curation project: one SQLite file with every picture, every version of its text, and what rules and persons thought of each.
 * Several processes may have it open at once. Nothing is ever overwritten: what is current is what came last.
 */
import { existsSync } from "node:fs";
import { dirname } from "node:path";
import Database from "libsql";
import { group, lastAction, type VerdictMade, type VersionMade } from "./decisions.ts";
import {
  type Action,
  type Entry,
  entryOf,
  type NewPicture,
  type NewVerdict,
  type NewVersion,
  type PictureRow,
  StaleVersionError,
  toVerdict,
  toVersion,
  type Verdict,
  type VerdictRow,
  type Version,
  type VersionKind,
  type VersionRow,
} from "./entry.ts";
import { atomically, migrate } from "./schema.ts";

/** How long a process waits for another that writes, in milliseconds. */
const patience = 10_000;

export class CurationStore {
  private readonly database: Database.Database;
  private readonly path: string;

  private constructor(database: Database.Database, path: string) {
    this.database = database;
    this.path = path;
  }

  /**
   * Opens a project, and brings its tables up to date.
   * @param create whether a file that is not there is made
   * @throws Error naming the file and what is wrong with it
   */
  static open(path: string, { create = false }: { readonly create?: boolean } = {}): CurationStore {
    if (!existsSync(path)) {
      if (!create) throw new Error(`${path} is not there; \`minigpt4 curate describe DATA\` begins a project`);
      if (!existsSync(dirname(path))) throw new Error(`${dirname(path)}, the folder of the project, is not there`);
    }
    let database: Database.Database | undefined;
    try {
      database = new Database(path);
      database.exec(`PRAGMA busy_timeout = ${patience}; PRAGMA foreign_keys = ON;`);
      migrate(database, path);
      // Stays in the file, so that it comes after the look at whether this is a project.
      database.exec("PRAGMA journal_mode = WAL");
      return new CurationStore(database, path);
    } catch (cause) {
      database?.close();
      throw explained(cause, path);
    }
  }

  /** Adds those that are not there yet. @returns how many were added */
  addPictures(pictures: readonly NewPicture[]): number {
    const insert = this.database.prepare(
      `INSERT INTO pictures (path, offset, length, name, sha256, added_at) VALUES (?, ?, ?, ?, ?, ?)
       ON CONFLICT (sha256) DO NOTHING`,
    );
    return this.atomically(() => {
      let added = 0;
      for (const { name, source, sha256 } of pictures) {
        const { path, at } = source;
        added += insert.run(path, at?.offset ?? null, at?.length ?? null, name, sha256, Date.now()).changes;
      }
      return added;
    });
  }

  /**
   * Adds a version, which is then the current one.
   * @throws StaleVersionError if the current version is not its parent
   */
  addVersion({ picture, parent, kind, text, author, prompt, details = {} }: NewVersion): Version {
    return this.atomically(() => {
      const current = this.currentOf(picture);
      if (current?.id !== parent) throw new StaleVersionError(current);
      return this.insertVersion({ picture, parent, kind, text, author, prompt, details });
    });
  }

  /** Adds a verdict. @throws StaleVersionError if a person judges a version that is no longer the current one */
  addVerdict({ version, decision, judge, author, reasons = [] }: NewVerdict): void {
    this.atomically(() => {
      const judged = this.database.prepare("SELECT picture FROM versions WHERE id = ?").get(version);
      if (!judged) throw new Error(`There is no version ${version}`);
      const current = this.currentOf((judged as { picture: number }).picture);
      if (judge === "person" && current?.id !== version) throw new StaleVersionError(current);
      this.insertVerdict({ version, decision, judge, author, reasons });
    });
  }

  /**
   * Takes back what a person did last: withdraws the verdict, or puts the text before the edit back as a new version.
   * @param only it is taken back only if it is this
   * @returns the picture; undefined if there is nothing to take back
   * @throws StaleVersionError if somebody has changed the edited text since
   */
  undo(author: string, only?: Action): number | undefined {
    return this.atomically(() => {
      const action = lastAction(
        this.rows<VerdictMade>(
          `SELECT picture, version, decision, verdicts.made_at AS madeAt FROM verdicts JOIN versions ON versions.id = version
           WHERE judge = 'person' AND verdicts.author = ? ORDER BY verdicts.id`,
          author,
        ),
        this.rows<VersionMade & { undoes: number | null }>(
          `SELECT picture, id, details ->> '$.undoes' AS undoes, made_at AS madeAt FROM versions
           WHERE author = ? AND (kind = 'edited' OR undoes IS NOT NULL) ORDER BY id`,
          author,
        ).map(({ undoes, ...made }) => ({ ...made, undoes: undoes ?? undefined })),
      );
      if (!action || (only && (only.picture !== action.picture || only.kind !== action.kind))) return undefined;
      const { picture } = action;
      const current = this.currentOf(picture);
      if (action.kind !== "edit") {
        this.insertVerdict({ version: current?.id ?? 0, decision: "withdrawn", judge: "person", author });
        return picture;
      }
      if (current?.id !== action.version) throw new StaleVersionError(current);
      const before = this.versions(picture).find(({ id }) => id === current.parent);
      if (!before) return undefined;
      const { kind, text } = before;
      const details = { undoes: current.id };
      const back = this.insertVersion({ picture, parent: current.id, kind, text, author, details });
      // What rules said of this text is as true as before.
      const rules = this.verdicts(picture).findLast(({ judge, version }) => judge === "rules" && version === before.id);
      if (rules) this.insertVerdict({ ...rules, version: back.id });
      return picture;
    });
  }

  /** Notes that a step failed for a picture. */
  addFailure(picture: number, step: string, message: string): void {
    this.atomically(() =>
      this.database
        .prepare("INSERT INTO failures (picture, step, message, made_at) VALUES (?, ?, ?, ?)")
        .run(picture, step, message, Date.now()),
    );
  }

  /** How often a step failed for each picture since its text last changed, and the last message. */
  failures(step: string): Map<number, { readonly times: number; readonly message: string }> {
    const rows = this.database
      .prepare(
        // Beside max(id), SQLite takes the other columns of that row.
        `SELECT picture, count(*) AS times, max(id), message
         FROM failures
         WHERE step = ? AND made_at >= coalesce((SELECT max(made_at) FROM versions WHERE versions.picture = failures.picture), 0)
         GROUP BY picture`,
      )
      .all(step) as { picture: number; times: number; message: string }[];
    return new Map(rows.map(({ picture, times, message }) => [picture, { times, message }]));
  }

  /** Tokens that all versions of a kind have cost, prompts and answers together, where their details say so. */
  tokensOf(kind: VersionKind): number {
    const [row] = this.rows<{ tokens: number }>(
      `SELECT coalesce(sum(
         coalesce(json_extract(details, '$.promptTokens'), 0) + coalesce(json_extract(details, '$.completionTokens'), 0)
       ), 0) AS tokens
       FROM versions WHERE kind = ?`,
      kind,
    );
    return row?.tokens ?? 0;
  }

  /** All pictures with what counts now, in the order in which they were added. */
  entries(): Entry[] {
    const versions = group(this.rows<VersionRow>("SELECT * FROM versions ORDER BY id"), ({ picture }) => picture);
    const verdicts = group(
      this.rows<VerdictRow & { picture: number }>(
        `SELECT verdicts.*, versions.picture FROM verdicts JOIN versions ON versions.id = verdicts.version ORDER BY verdicts.id`,
      ),
      ({ picture }) => picture,
    );
    return this.rows<PictureRow>("SELECT * FROM pictures ORDER BY id").map((row) =>
      entryOf(row, versions.get(row.id) ?? [], verdicts.get(row.id) ?? []),
    );
  }

  /** One picture with what counts now; undefined if there is none with this id. */
  entry(picture: number): Entry | undefined {
    const [row] = this.rows<PictureRow>("SELECT * FROM pictures WHERE id = ?", picture);
    if (!row) return undefined;
    return entryOf(
      row,
      this.rows<VersionRow>("SELECT * FROM versions WHERE picture = ? ORDER BY id", picture),
      this.rows<VerdictRow>(
        `SELECT verdicts.* FROM verdicts JOIN versions ON versions.id = verdicts.version
         WHERE versions.picture = ? ORDER BY verdicts.id`,
        picture,
      ),
    );
  }

  /** Every version of a picture's text, oldest first. */
  versions(picture: number): Version[] {
    return this.rows<VersionRow>("SELECT * FROM versions WHERE picture = ? ORDER BY id", picture).map(toVersion);
  }

  /** Every verdict on any version of a picture's text, oldest first. */
  verdicts(picture: number): Verdict[] {
    return this.rows<VerdictRow>(
      `SELECT verdicts.* FROM verdicts JOIN versions ON versions.id = verdicts.version
       WHERE versions.picture = ? ORDER BY verdicts.id`,
      picture,
    ).map(toVerdict);
  }

  /** A number that is another one when somebody else has changed the project: another process, or another store. */
  changesOfOthers(): number {
    return this.rows<{ version: number }>("SELECT data_version AS version FROM pragma_data_version")[0]?.version ?? 0;
  }

  close(): void {
    this.database.close();
  }

  private insertVersion({ picture, parent, kind, text, author, prompt, details = {} }: NewVersion): Version {
    this.database
      .prepare(
        `INSERT INTO versions (picture, parent, kind, text, author, prompt, details, made_at)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
      )
      // At a null character a text would be cut off where it is read.
      .run(
        picture,
        parent ?? null,
        kind,
        text.replaceAll("\0", "\ufffd"),
        author,
        prompt ?? null,
        JSON.stringify(details),
        Date.now(),
      );
    return this.currentOf(picture) as Version;
  }

  private insertVerdict({ version, decision, judge, author, reasons = [] }: NewVerdict): void {
    this.database
      .prepare("INSERT INTO verdicts (version, decision, judge, author, reasons, made_at) VALUES (?, ?, ?, ?, ?, ?)")
      .run(version, decision, judge, author, JSON.stringify(reasons), Date.now());
  }

  private currentOf(picture: number): Version | undefined {
    const [row] = this.rows<VersionRow>("SELECT * FROM versions WHERE picture = ? ORDER BY id DESC LIMIT 1", picture);
    return row && toVersion(row);
  }

  private rows<Row>(query: string, ...values: readonly unknown[]): Row[] {
    return this.database.prepare(query).all(...values) as Row[];
  }

  private atomically<T>(work: () => T): T {
    return atomically(this.database, this.path, work);
  }
}

function explained(cause: unknown, path: string): Error {
  const error = cause instanceof Error ? cause : new Error(String(cause));
  const { code } = error as { code?: unknown };
  if (code === "SQLITE_NOTADB" || code === "SQLITE_CORRUPT") {
    return new Error(`${path} is no curation project, or is damaged: ${error.message}`, { cause });
  }
  if (typeof code !== "string" || !code.startsWith("SQLITE")) return error;
  const hint = code.startsWith("SQLITE_IOERR") ? " (is the disk full, or was it taken away?)" : "";
  return new Error(`${path} cannot be opened: ${error.message}${hint}`, { cause });
}
