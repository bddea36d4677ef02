/** API keys, sent by clients as `Authorization: Bearer KEY`. */
import { createHash, timingSafeEqual } from "node:crypto";
import { readFile } from "node:fs/promises";
import type { MiddlewareHandler } from "hono";
import { describeProblem } from "../files/errors.ts";
import { openAiError } from "./errors.ts";
import type { ServerEnv } from "./server-context.ts";

const variable = "MINIGPT4_API_KEYS";
const minKeyLength = 16;

/**
 * Rejects requests without one of the keys, with status 401. Keys are compared in constant time, so that the response time
 * reveals nothing about them.
 */
export function requireApiKey(keys: readonly string[]): MiddlewareHandler<ServerEnv> {
  const digests = keys.map(digest);
  return async (context, next) => {
    const given = /^Bearer +(\S+) *$/i.exec(context.req.header("authorization") ?? "")?.[1];
    if (given === undefined || !isAmong(digest(given), digests)) {
      const message =
        given === undefined
          ? "This server requires an API key. Send the header Authorization: Bearer KEY."
          : "The API key is not valid on this server.";
      const challenge = `Bearer realm="minigpt4"${given === undefined ? "" : ', error="invalid_token"'}`;
      throw openAiError(401, { message, code: "invalid_api_key" }, { "www-authenticate": challenge });
    }
    // Identifies the client by the key, not by the header, which can be written in many ways.
    context.set("key", given);
    await next();
  };
}

function isAmong(given: Buffer, digests: readonly Buffer[]): boolean {
  let found = false;
  for (const known of digests) found = timingSafeEqual(given, known) || found;
  return found;
}

function digest(key: string): Buffer {
  return createHash("sha256").update(key).digest();
}

/**
 * Reads API keys from the environment variable MINIGPT4_API_KEYS (comma separated) and from a file (one per line; empty lines
 * and lines that start with # are ignored).
 *
 * @throws Error if a source has no key, or a key is too short or invalid; the message does not contain the key
 */
export async function readApiKeys(env: NodeJS.ProcessEnv, file?: string): Promise<string[]> {
  const keys: string[] = [];
  const listed = env[variable];
  if (listed !== undefined) keys.push(...checkKeys(listed.split(","), variable));
  if (file !== undefined) {
    const text = await readFile(file, "utf8").catch((cause: NodeJS.ErrnoException) => {
      throw new Error(`Cannot read the API keys file ${file}: ${describeProblem(cause)}`, { cause });
    });
    const lines = text.replace(/^\ufeff/, "").split("\n");
    keys.push(
      ...checkKeys(
        lines.filter((line) => line.trim() !== "" && !line.startsWith("#")),
        file,
      ),
    );
  }
  return [...new Set(keys)];
}

function checkKeys(texts: readonly string[], source: string): string[] {
  if (texts.length === 0) throw new Error(`${source} contains no API key. Add one, or do not set it.`);
  return texts.map((text, i) => {
    const key = text.trim();
    const label = `API key ${i + 1} of ${source}`;
    if (key.length < minKeyLength) {
      throw new Error(`${label} has ${key.length} characters, expected at least ${minKeyLength}.`);
    }
    if (!/^[\x21-\x7e]+$/.test(key)) {
      throw new Error(`${label} has characters that are invalid in a header. Use printable ASCII without spaces.`);
    }
    return key;
  });
}
