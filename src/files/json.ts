/** JSON from files that may be damaged or hostile: bounded in depth and size, validated, with errors that name file and key. */
import { z } from "zod";
import { printable } from "./errors.ts";

/** Each bracket is a byte in the file and up to a hundred in memory; a header of 100 MB has some ten million of these. */
const maxTokens = 10_000_000;
const maxDepth = 16;
const [quotation, backslash, comma, openList, closeList, openObject, closeObject] = new TextEncoder().encode(
  '"\\,[]{}',
);

/** Parses UTF-8 JSON. @throws Error if it is malformed, nested more than 16 deep, or has more than ten million values */
export function parseJson(bytes: Uint8Array): unknown {
  checkStructure(bytes);
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (cause) {
    throw new Error("is not valid JSON: it is not UTF-8 text", { cause });
  }
  return parse(text);
}

/** Parses and validates JSON text. @throws Error naming `path`, and each key that is wrong */
export function parseJsonText<S extends z.ZodType>(text: string, path: string, schema: S): z.output<S> {
  try {
    return validate(parse(text), schema);
  } catch (cause) {
    throw new Error(`${path}: ${(cause as Error).message}`, { cause });
  }
}

/** Of invalid files with thousands of entries, the first few are enough. */
const maxIssues = 5;

/** @throws Error naming the keys that are wrong */
export function validate<S extends z.ZodType>(json: unknown, schema: S): z.output<S> {
  const { data, error } = schema.safeParse(json);
  if (!error) return data;
  const more = error.issues.length - maxIssues;
  const issues = z.prettifyError(new z.ZodError(error.issues.slice(0, maxIssues)));
  throw new Error(more > 0 ? `${issues}\n... and ${more} more` : issues, { cause: error });
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    // The message quotes the text.
    throw new Error(`is not valid JSON: ${printable((cause as Error).message)}`, { cause });
  }
}

function checkStructure(bytes: Uint8Array): void {
  let tokens = 0;
  let depth = 0;
  let inString = false;
  for (let i = 0; i < bytes.length; i++) {
    const byte = bytes[i];
    if (inString) {
      if (byte === backslash) i++;
      else if (byte === quotation) inString = false;
    } else if (byte === quotation) inString = true;
    else if (byte === comma) tokens++;
    else if (byte === openList || byte === openObject) {
      tokens++;
      if (++depth > maxDepth) throw new Error(`is JSON nested more than ${maxDepth} deep`);
    } else if (byte === closeList || byte === closeObject) depth--;
  }
  if (tokens > maxTokens) throw new Error(`is JSON with more than ${maxTokens} values`);
}
