/** The tables of a curation project, transactions, and migrations of older files. */
import type Database from "libsql";

/**
 * Runs `work` in a transaction, after waiting for other processes that write.
 *
 * @throws Error if the disk is full; otherwise what `work` throws
 */
export function atomically<T>(database: Database.Database, path: string, work: () => T): T {
  try {
    database.exec("BEGIN IMMEDIATE");
    const result = work();
    database.exec("COMMIT");
    return result;
  } catch (cause) {
    // If the disk is full, SQLite has rolled back already, and libsql's own transactions would fail on rolling back again.
    if (database.inTransaction) database.exec("ROLLBACK");
    if ((cause as { code?: unknown }).code !== "SQLITE_FULL") throw cause;
    throw new Error(`${path}: the disk is full; the last change was not saved, all earlier ones are`, { cause });
  }
}

/**
 * Entry i migrates a file from version i to version i + 1; `PRAGMA user_version` is the version of a file. Append entries, never change
 * them.
 */
const migrations: readonly string[] = [
  `CREATE TABLE pictures (
     id INTEGER PRIMARY KEY,
     -- Where the bytes are: a file, and a stretch of it where it holds more.
     path TEXT NOT NULL,
     offset INTEGER,
     length INTEGER,
     name TEXT NOT NULL,
     sha256 TEXT NOT NULL UNIQUE,
     added_at INTEGER NOT NULL
   ) STRICT;

   -- Every text that a picture ever had; the latest is the current one.
   CREATE TABLE versions (
     id INTEGER PRIMARY KEY,
     picture INTEGER NOT NULL REFERENCES pictures (id),
     -- The version that it was made of.
     parent INTEGER REFERENCES versions (id),
     kind TEXT NOT NULL CHECK (kind IN ('described', 'polished', 'edited')),
     text TEXT NOT NULL,
     -- The model, or the person.
     author TEXT NOT NULL,
     prompt TEXT,
     details TEXT NOT NULL DEFAULT '{}' CHECK (json_valid(details)),
     made_at INTEGER NOT NULL
   ) STRICT;
   CREATE INDEX versions_of_picture ON versions (picture, id);

   -- What rules and persons thought of a version. The latest of each author counts.
   CREATE TABLE verdicts (
     id INTEGER PRIMARY KEY,
     version INTEGER NOT NULL REFERENCES versions (id),
     decision TEXT NOT NULL CHECK (decision IN ('keep', 'drop', 'withdrawn')),
     judge TEXT NOT NULL CHECK (judge IN ('rules', 'person')),
     author TEXT NOT NULL,
     -- Of rules: each that was broken, and by what.
     reasons TEXT NOT NULL DEFAULT '[]' CHECK (json_valid(reasons)),
     made_at INTEGER NOT NULL
   ) STRICT;
   CREATE INDEX verdicts_of_version ON verdicts (version, id);

   -- What was tried and failed: what is tried again, and how often.
   CREATE TABLE failures (
     id INTEGER PRIMARY KEY,
     picture INTEGER NOT NULL REFERENCES pictures (id),
     step TEXT NOT NULL,
     message TEXT NOT NULL,
     made_at INTEGER NOT NULL
   ) STRICT;
   CREATE INDEX failures_of_picture ON failures (picture, step, id);

   -- Nothing is ever overwritten.
   CREATE TRIGGER versions_stay BEFORE UPDATE ON versions BEGIN SELECT raise(ABORT, 'versions are never changed'); END;
   CREATE TRIGGER versions_remain BEFORE DELETE ON versions BEGIN SELECT raise(ABORT, 'versions are never removed'); END;
   CREATE TRIGGER verdicts_stay BEFORE UPDATE ON verdicts BEGIN SELECT raise(ABORT, 'verdicts are never changed'); END;
   CREATE TRIGGER verdicts_remain BEFORE DELETE ON verdicts BEGIN SELECT raise(ABORT, 'verdicts are never removed'); END;`,
  // Versions before 0.2 call images pictures.
  `ALTER TABLE pictures RENAME TO images;
   ALTER TABLE versions RENAME COLUMN picture TO image;
   ALTER TABLE failures RENAME COLUMN picture TO image;`,
];

/** The version that this program writes. */
const schemaVersion = migrations.length;

/**
 * Creates or migrates the tables of a file, in one transaction.
 *
 * @throws Error if a newer program has written the file, or it is not a project
 */
export function migrate(database: Database.Database, path: string): void {
  atomically(database, path, () => {
    const found = userVersion(database);
    if (found > schemaVersion) {
      throw new Error(
        `${path} was written by a newer minigpt4 (version ${found} of the tables; this program supports up to ${schemaVersion}); update minigpt4`,
      );
    }
    if (found === 0 && hasTables(database))
      throw new Error(`${path} is an SQLite database, but not a curation project`);
    for (const step of migrations.slice(found)) database.exec(step);
    database.exec(`PRAGMA user_version = ${schemaVersion}`);
  });
}

function userVersion(database: Database.Database): number {
  return (database.prepare("SELECT user_version AS version FROM pragma_user_version").get() as { version: number })
    .version;
}

function hasTables(database: Database.Database): boolean {
  return database.prepare("SELECT 1 AS found FROM sqlite_master WHERE type = 'table'").get() !== undefined;
}
