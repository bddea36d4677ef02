/** Changes of a project that are made together or not at all. */
import type Database from "libsql";

/**
 * All that `work` writes, or nothing of it; another process that writes is waited for.
 * @throws Error saying that the disk is full if it is, else what `work` throws
 */
export function atomically<T>(database: Database.Database, path: string, work: () => T): T {
  try {
    database.exec("BEGIN IMMEDIATE");
    const result = work();
    database.exec("COMMIT");
    return result;
  } catch (cause) {
    // Where the disk is full SQLite has taken everything back already, and libsql's own transactions fail over that.
    if (database.inTransaction) database.exec("ROLLBACK");
    if ((cause as { code?: unknown }).code !== "SQLITE_FULL") throw cause;
    throw new Error(
      `${path}: the disk is full; what was being written is not in the project, everything before it is`,
      {
        cause,
      },
    );
  }
}
