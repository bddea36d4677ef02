/** JSON files, read and written. Apart from `json.ts`, which browsers run too. */
import type { z } from "zod";
import { writeFileAtomic } from "./atomic.ts";
import { describeProblem, inFile } from "./errors.ts";
import { RandomAccessFile } from "./file.ts";
import { parseJson, validate } from "./json.ts";

/** Reads a JSON file. @throws Error naming the file, if it cannot be read, is malformed, or does not match the schema */
export async function readJsonFile(path: string): Promise<unknown>;
export async function readJsonFile<S extends z.ZodType>(path: string, schema: S): Promise<z.output<S>>;
export async function readJsonFile(path: string, schema?: z.ZodType): Promise<unknown> {
  const bytes = await readWhole(path).catch((cause: unknown) => {
    throw new Error(`${path} cannot be read: ${describeProblem(cause)}`, { cause });
  });
  return inFile(path, async () => (schema ? validate(parseJson(bytes), schema) : parseJson(bytes)));
}

/** Refuses what is not a regular file: a named pipe would wait for a writer. */
async function readWhole(path: string): Promise<Uint8Array> {
  const file = await RandomAccessFile.open(path);
  return file.read(0, file.size).finally(() => file.close());
}

/** Writes a value as indented JSON, atomically. */
export function writeJsonFile(path: string, value: unknown): Promise<void> {
  return writeFileAtomic(path, `${JSON.stringify(value, null, 2)}\n`);
}
