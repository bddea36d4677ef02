/** Recipes as YAML files: values that replace those of the file, and errors that name the line. */
import { readFile } from "node:fs/promises";
import { type Document, LineCounter, parseDocument } from "yaml";
import type { z } from "zod";

export interface RecipeFile {
  readonly document: Document;
  /** What the document says. @throws Error naming the file, the line and the key that is wrong */
  check<T>(schema: z.ZodType<T>): T;
}

/**
 * Reads a file.
 *
 * @param settings `key.key=value` each; they replace what the file says, and `null` removes it
 * @throws Error naming the file and what is wrong with it
 */
export async function readRecipeFile(path: string, settings: readonly string[]): Promise<RecipeFile> {
  const text = await readFile(path, "utf8").catch((cause: Error) => {
    throw new Error(`The recipe ${path} cannot be read: ${cause.message}`, { cause });
  });
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines });
  const [broken] = document.errors;
  if (broken) throw new Error(`${path}: ${broken.message}`);
  for (const setting of settings) {
    const [, key, value] = /^([\w.]+)=(.*)$/s.exec(setting) ?? [];
    if (!key || value === undefined)
      throw new Error(`--set ${setting}: expected key.key=value, for example run.init_lr=3e-5`);
    const given: unknown = parseDocument(value).toJS();
    if (given === null) document.deleteIn(key.split("."));
    else document.setIn(key.split("."), document.createNode(given));
  }
  return {
    document,
    check(schema) {
      const { data, error } = schema.safeParse(document.toJS());
      if (!error) return data;
      const problems = error.issues.map(({ path: keys, message }) => {
        const line = lineOf(keys);
        return `${path}${line === undefined ? "" : `:${line}`}: ${keys.join(".") || "the recipe"}: ${message}`;
      });
      throw new Error(problems.join("\n"));
    },
  };

  /** Of the key, or of the nearest one above it that the file has. */
  function lineOf(keys: readonly PropertyKey[]): number | undefined {
    for (let length = keys.length; length > 0; length--) {
      const node = document.getIn(keys.slice(0, length), true) as { range?: [number, number, number] } | undefined;
      if (node?.range) return lines.linePos(node.range[0]).line;
    }
    return undefined;
  }
}
