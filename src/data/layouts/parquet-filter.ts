/** Choosing samples by what img2dataset writes of them in a parquet file beside each shard. */
import { quote } from "../../checkpoints/quote.ts";
import { readParquet } from "./parquet-rows.ts";

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
