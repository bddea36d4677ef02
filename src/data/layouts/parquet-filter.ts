/** Choosing samples by what img2dataset writes of them in a parquet file beside each shard. */
import { type FileMetaData, parquetMetadataAsync, parquetReadObjects, parquetSchema } from "hyparquet";
import { inFile, RandomAccessFile } from "../../checkpoints/file.ts";
import { quote } from "../../checkpoints/quote.ts";

/** By column name, what the value has to be; bounds are included. A missing value (null) never passes. */
export type ParquetFilter = Readonly<Record<string, Condition>>;

interface Condition {
  readonly min?: number;
  readonly max?: number;
  readonly equals?: string | number | boolean;
}

/** Whether the sample of each `key` passes. @throws Error naming the file, and its columns if one of the filter is missing */
export function readVerdicts(path: string, filter: ParquetFilter): Promise<Map<string, boolean>> {
  return reading(path, filter, async (file, metadata) => {
    const columns = [...new Set(["key", ...Object.keys(filter)])];
    const rows = await parquetReadObjects({ file, metadata, columns });
    return new Map(rows.map((row) => [String(row.key), passes(row, filter)]));
  });
}

/** @throws Error naming the file and its columns if one that the filter needs is not there */
export function checkColumns(path: string, filter: ParquetFilter): Promise<void> {
  return reading(path, filter, async () => {});
}

type AsyncBuffer = Parameters<typeof parquetMetadataAsync>[0];

function reading<T>(
  path: string,
  filter: ParquetFilter,
  work: (file: AsyncBuffer, metadata: FileMetaData) => Promise<T>,
): Promise<T> {
  return inFile(path, async () => {
    const file = await RandomAccessFile.open(path);
    try {
      const buffer: AsyncBuffer = {
        byteLength: file.size,
        slice: async (start, end = file.size) => (await file.read(start, end - start)).buffer as ArrayBuffer,
      };
      const metadata = await parquetMetadataAsync(buffer);
      const columns = parquetSchema(metadata).children.map(({ element }) => element.name);
      for (const name of ["key", ...Object.keys(filter)]) {
        if (!columns.includes(name)) throw new Error(`has no column ${quote(name)}; it has ${columns.join(", ")}`);
      }
      return await work(buffer, metadata);
    } finally {
      await file.close();
    }
  });
}

function passes(row: Readonly<Record<string, unknown>>, filter: ParquetFilter): boolean {
  return Object.entries(filter).every(([name, { min, max, equals }]) => {
    const stored = row[name];
    if (stored === null || stored === undefined) return false;
    const value = typeof stored === "bigint" ? Number(stored) : stored;
    if (min !== undefined || max !== undefined) {
      if (typeof value !== "number") throw mismatch(name, value, "min and max need numbers");
      // Written so that NaN does not pass.
      if (!(value >= (min ?? -Infinity) && value <= (max ?? Infinity))) return false;
    }
    if (equals === undefined) return true;
    if (typeof value !== typeof equals) throw mismatch(name, value, `the filter has ${JSON.stringify(equals)}`);
    return value === equals;
  });
}

function mismatch(column: string, value: unknown, expected: string): Error {
  return new Error(`column ${quote(column)} holds ${quote(String(value))} (${typeof value}), but ${expected}`);
}
