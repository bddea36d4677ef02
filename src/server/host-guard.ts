/**
 * Keeps pages of other sites from using the server through a visitor's browser: by a name of theirs that they point at
 * this machine (DNS rebinding), or by requests across sites.
 */
import { isIP } from "node:net";
import type { Context, MiddlewareHandler } from "hono";
import { openAiError } from "./openai-error.ts";

/**
 * Refuses, with status 403, requests for a host that the server does not go by, and those that a browser makes for
 * a page of another origin. Programs, which send neither `Origin` nor `Sec-Fetch-Site`, are only asked for the host.
 *
 * @param allowed names of the server, each with a port ("localhost:8080") or for any port ("localhost"); "*" is any name.
 * An IP address is always allowed: who can point a name at this machine still comes with that name.
 * @param origins of pages that may ask although they come from elsewhere ("https://example.com"); "*" is any
 */
export function guardHost(allowed: readonly string[], origins: readonly string[] = []): MiddlewareHandler {
  const names = new Set(allowed.map((name) => name.toLowerCase()));
  const pages = new Set(origins.map((origin) => origin.toLowerCase()));
  return async (context, next) => {
    const host = (context.req.header("host") ?? "").toLowerCase();
    if (!isExpected(host, names)) {
      const message =
        "The server does not go by the name in the request's Host header; allow the name where it is started";
      throw openAiError(403, { message, code: "host_not_allowed" });
    }
    if (!pages.has("*") && isFromElsewhere(context, host, pages)) {
      const message = "A page of another origin may not ask this server; allow its origin where the server is started";
      throw openAiError(403, { message, code: "origin_not_allowed" });
    }
    await next();
  };
}

function isExpected(host: string, names: ReadonlySet<string>): boolean {
  const parts = /^(\[[0-9a-f:.]+\]|[a-z0-9._-]+?)\.?(:\d{1,5})?$/.exec(host);
  if (!parts) return false;
  const [, name = "", port = ""] = parts;
  return names.has("*") || isIP(name.replace(/[[\]]/g, "")) !== 0 || names.has(name) || names.has(name + port);
}

function isFromElsewhere({ req }: Context, host: string, pages: ReadonlySet<string>): boolean {
  const origin = req.header("origin")?.toLowerCase();
  // The scheme is not compared: before a proxy that speaks https the server itself sees http.
  if (origin !== undefined) return !pages.has(origin) && origin.replace(/^https?:\/\//, "") !== host;
  // Following a link to the server's page is no request of the page that has the link.
  const isLink =
    req.method === "GET" && req.header("sec-fetch-mode") === "navigate" && req.header("sec-fetch-dest") === "document";
  return req.header("sec-fetch-site") === "cross-site" && !isLink;
}
