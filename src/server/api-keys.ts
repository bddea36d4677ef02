/** Who may ask: keys that clients send as `Authorization: Bearer KEY`. */
import { createHash, timingSafeEqual } from "node:crypto";
import { readFile } from "node:fs/promises";
import type { MiddlewareHandler } from "hono";
import { openAiError } from "./errors.ts";
import type { ServerEnv } from "./server-context.ts";

const variable = "MINIGPT4_API_KEYS";
const shortestKey = 16;

/**
 * Lets through only requests with one of the keys; others get status 401. Without keys nothing is let through.
 * How long a comparison takes tells neither which key nor how much of it was right.
 */
export function requireApiKey(keys: readonly string[]): MiddlewareHandler<ServerEnv> {
  const digests = keys.map(digest);
  return async (context, next) => {
    const given = /^Bearer +(\S+) *$/i.exec(context.req.header("authorization") ?? "")?.[1];
    if (given === undefined || !isAmong(digest(given), digests)) {
      const message =
        given === undefined
          ? "This server wants an API key: send the header Authorization: Bearer KEY"
          : "The API key is not one that this server knows";
      const challenge = `Bearer realm="minigpt4"${given === undefined ? "" : ', error="invalid_token"'}`;
      throw openAiError(401, { message, code: "invalid_api_key" }, { "www-authenticate": challenge });
    }
    // Not the header, which a client can write in many ways, and be another client with each.
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
 * The keys that the environment variable MINIGPT4_API_KEYS names (comma separated) and those of a file (one a line; empty
 * lines and lines that begin with # are left out).
 *
 * @throws Error that says which key is too short or not valid, but not what it is; if there is a source without keys
 */
export async function readApiKeys(env: NodeJS.ProcessEnv, file?: string): Promise<string[]> {
  const keys: string[] = [];
  const listed = env[variable];
  if (listed !== undefined) keys.push(...checkKeys(listed.split(","), variable));
  if (file !== undefined) {
    const text = await readFile(file, "utf8").catch((cause: NodeJS.ErrnoException) => {
      throw new Error(`The file of API keys ${file} cannot be read: ${cause.code ?? cause.message}`, { cause });
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
  if (texts.length === 0) throw new Error(`${source} holds no API key; give it one, or leave it out`);
  return texts.map((text, i) => {
    const key = text.trim();
    const place = `API key ${i + 1} of ${source}`;
    if (key.length < shortestKey) {
      throw new Error(`${place} has ${key.length} characters; it should have at least ${shortestKey}`);
    }
    if (!/^[\x21-\x7e]+$/.test(key)) {
      throw new Error(`${place} has characters that a header cannot carry; use letters, digits and signs of ASCII`);
    }
    return key;
  });
}
