/** Filters samples by the metadata that img2dataset writes to a parquet file next to each shard. */
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
import { Worker } from "node:worker_threads";
import { inFile, quote } from "../../files/errors.ts";

export interface ParquetRows {
  /** Names of all columns of the file. */
  readonly columns: readonly string[];
  /** Values by column name; empty if a requested column is missing. */
  readonly rows: readonly Readonly<Record<string, unknown>>[];
}

const require = createRequire(import.meta.url);
const library = pathToFileURL(require.resolve("hyparquet")).href;

/** Source text, because a worker cannot start from a TypeScript file when run from source. */
const program = `
const { parentPort, workerData } = require("node:worker_threads");
const { path, names, library } = workerData;
import(library).then(async ({ asyncBufferFromFile, parquetMetadataAsync, parquetReadObjects, parquetSchema }) => {
  const file = await asyncBufferFromFile(path);
  const metadata = await parquetMetadataAsync(file);
  const columns = parquetSchema(metadata).children.map(({ element }) => element.name);
  const complete = names.every((name) => columns.includes(name));
  parentPort.postMessage({ columns, rows: complete ? await parquetReadObjects({ file, metadata, columns: names }) : [] });
});
`;

/**
 * Reads some columns of a parquet file. It does so in a worker that can be terminated, because hyparquet may loop forever on a
 * corrupted page.
 *
 * @param timeout milliseconds; a shard's table takes a fraction of a second
 * @throws Error naming the file if it is missing or damaged
 */
export function readParquet(path: string, names: readonly string[], timeout = 60_000): Promise<ParquetRows> {
  return inFile(path, async () => {
    const worker = new Worker(program, {
      eval: true,
      execArgv: [],
      resourceLimits: { maxOldGenerationSizeMb: 1024 },
      workerData: { path, names, library },
    });
    let timer: NodeJS.Timeout | undefined;
    try {
      return await new Promise<ParquetRows>((resolve, reject) => {
        const expire = () => reject(new Error(`took more than ${timeout / 1000} s to read; it is probably corrupted`));
        timer = setTimeout(expire, timeout);
        worker.once("message", resolve);
        worker.once("error", (cause) => reject(new Error(`cannot be read as parquet: ${cause.message}`, { cause })));
      });
    } finally {
      clearTimeout(timer);
      await worker.terminate();
    }
  });
}

/** Conditions by column name. Bounds are inclusive; a missing value (null) never matches. */
export type ParquetFilter = Readonly<Record<string, Condition>>;

interface Condition {
  readonly min?: number;
  readonly max?: number;
  readonly equals?: string | number | boolean;
}

/**
 * Applies a filter to every row of a parquet file.
 *
 * @returns whether each sample matches, by its `key`
 * @throws Error naming the file, and its columns if the filter uses one that does not exist
 */
export async function applyFilter(path: string, filter: ParquetFilter): Promise<Map<string, boolean>> {
  const names = [...new Set(["key", ...Object.keys(filter)])];
  const { columns, rows } = await readParquet(path, names);
  const missing = names.find((name) => !columns.includes(name));
  if (missing !== undefined) {
    throw new Error(`${path} has no column ${quote(missing)}; its columns are ${columns.map(quote).join(", ")}`);
  }
  return new Map(rows.map((row) => [String(row.key), matches(row, filter, path)]));
}

function matches(row: Readonly<Record<string, unknown>>, filter: ParquetFilter, path: string): boolean {
  return Object.entries(filter).every(([name, { min, max, equals }]) => {
    const stored = row[name];
    if (stored === null || stored === undefined) return false;
    const value = typeof stored === "bigint" ? Number(stored) : stored;
    const mismatch = (expected: string) =>
      new Error(`${path}: column ${quote(name)} holds ${quote(String(value))} (${typeof value}), but ${expected}`);
    if (min !== undefined || max !== undefined) {
      if (typeof value !== "number") throw mismatch("min and max need numbers");
      // Written so that NaN does not match.
      if (!(value >= (min ?? -Infinity) && value <= (max ?? Infinity))) return false;
    }
    if (equals === undefined) return true;
    if (typeof value !== typeof equals) throw mismatch(`the filter has ${JSON.stringify(equals)}`);
    return value === equals;
  });
}
