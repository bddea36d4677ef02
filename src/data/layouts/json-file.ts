/** A JSON file of captions, read and checked. */
import type { z } from "zod";
import { inFile, RandomAccessFile } from "../../checkpoints/file.ts";
import { parseJson } from "../../checkpoints/json.ts";

/** @throws Error naming the file, and the first place in it that is not as the schema says */
export function readJson<T>(path: string, schema: z.ZodType<T>): Promise<T> {
  return inFile(path, async () => {
    const file = await RandomAccessFile.open(path);
    const bytes = await file.read(0, file.size).finally(() => file.close());
    const { data, error } = schema.safeParse(parseJson(bytes));
    if (data !== undefined) return data;
    const issue = error?.issues[0];
    throw new Error(`${issue?.path.join(".") || "the file"}: ${issue?.message}`);
  });
}
