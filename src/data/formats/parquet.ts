/** Choosing samples by what img2dataset writes of them in a parquet file beside each shard. */
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
import { Worker } from "node:worker_threads";
import { inFile, quote } from "../../files/file.ts";

// * Some columns of a parquet file. It is read in a thread of its own, which can be ended: over a damaged page hyparquet
// may loop for ever.

export interface ParquetRows {
  /** Names of all columns of the file. */
  readonly columns: readonly string[];
  /** Values by column name; none if a column that is asked for is missing. */
  readonly rows: readonly Readonly<Record<string, unknown>>[];
}

const require = createRequire(import.meta.url);
const library = pathToFileURL(require.resolve("hyparquet")).href;

/** Given as text, since only the built package has a JavaScript file that a thread could begin with. */
const program = `
const { parentPort, workerData } = require("node:worker_threads");
const { path, wanted, library } = workerData;
import(library).then(async ({ asyncBufferFromFile, parquetMetadataAsync, parquetReadObjects, parquetSchema }) => {
  const file = await asyncBufferFromFile(path);
  const metadata = await parquetMetadataAsync(file);
  const columns = parquetSchema(metadata).children.map(({ element }) => element.name);
  const complete = wanted.every((name) => columns.includes(name));
  parentPort.postMessage({ columns, rows: complete ? await parquetReadObjects({ file, metadata, columns: wanted }) : [] });
});
`;

/**
 * Reads the columns `wanted`.
 *
 * @param limit milliseconds that it may take; a shard's table takes a fraction of a second
 * @throws Error naming the file if it is missing or damaged
 */
export function readParquet(path: string, wanted: readonly string[], limit = 60_000): Promise<ParquetRows> {
  return inFile(path, async () => {
    const worker = new Worker(program, {
      eval: true,
      execArgv: [],
      resourceLimits: { maxOldGenerationSizeMb: 1024 },
      workerData: { path, wanted, library },
    });
    let timer: NodeJS.Timeout | undefined;
    try {
      return await new Promise<ParquetRows>((resolve, reject) => {
        const late = () => reject(new Error(`took more than ${limit / 1000} s to read; it is probably damaged`));
        timer = setTimeout(late, limit);
        worker.once("message", resolve);
        worker.once("error", (cause) => reject(new Error(`cannot be read as parquet: ${cause.message}`, { cause })));
      });
    } finally {
      clearTimeout(timer);
      await worker.terminate();
    }
  });
}

/** By column name, what the value has to be; bounds are included. A missing value (null) never passes. */
export type ParquetFilter = Readonly<Record<string, Condition>>;

interface Condition {
  readonly min?: number;
  readonly max?: number;
  readonly equals?: string | number | boolean;
}

/**
 * Whether the sample of each `key` passes.
 *
 * @throws Error naming the file, and its columns if one of the filter is not there
 */
export async function readVerdicts(path: string, filter: ParquetFilter): Promise<Map<string, boolean>> {
  const wanted = [...new Set(["key", ...Object.keys(filter)])];
  const { columns, rows } = await readParquet(path, wanted);
  const missing = wanted.find((name) => !columns.includes(name));
  if (missing !== undefined) {
    throw new Error(`${path} has no column ${quote(missing)}; it has ${columns.map(quote).join(", ")}`);
  }
  return new Map(rows.map((row) => [String(row.key), passes(row, filter, path)]));
}

function passes(row: Readonly<Record<string, unknown>>, filter: ParquetFilter, path: string): boolean {
  return Object.entries(filter).every(([name, { min, max, equals }]) => {
    const stored = row[name];
    if (stored === null || stored === undefined) return false;
    const value = typeof stored === "bigint" ? Number(stored) : stored;
    const mismatch = (expected: string) =>
      new Error(`${path}: column ${quote(name)} holds ${quote(String(value))} (${typeof value}), but ${expected}`);
    if (min !== undefined || max !== undefined) {
      if (typeof value !== "number") throw mismatch("min and max need numbers");
      // Written so that NaN does not pass.
      if (!(value >= (min ?? -Infinity) && value <= (max ?? Infinity))) return false;
    }
    if (equals === undefined) return true;
    if (typeof value !== typeof equals) throw mismatch(`the filter has ${JSON.stringify(equals)}`);
    return value === equals;
  });
}
