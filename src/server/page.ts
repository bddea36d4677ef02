/** The page: static files that the same server gives out. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { serveStatic } from "@hono/node-server/serve-static";
import type { Hono } from "hono";
import { secureHeaders } from "hono/secure-headers";
import type { ServerEnv } from "./server-context.ts";

/** Files whose name holds a hash of what is in them, as Vite names them: `assets/index-BxT3_k9a.js`. */
const hashed = /[\\/]assets[\\/][^\\/]+-[\w-]{8,}\.\w+$/;

/** Nothing but the server's own files; images that a visitor chose are blobs or data, and the engine of the browser is WebAssembly. */
const headers = secureHeaders({
  contentSecurityPolicy: {
    defaultSrc: ["'self'"],
    scriptSrc: ["'self'", "'wasm-unsafe-eval'"],
    imgSrc: ["'self'", "blob:", "data:"],
    objectSrc: ["'none'"],
    baseUri: ["'none'"],
    formAction: ["'none'"],
    frameAncestors: ["'none'"],
  },
  xFrameOptions: "DENY",
  strictTransportSecurity: false,
});

/** Serves a folder at `/`. Where it was not built, `/` says how to. */
export function addPage(app: Hono<ServerEnv>, folder: string): void {
  app.use(headers);
  if (!existsSync(join(folder, "index.html"))) {
    app.get("/", (c) =>
      c.text("The page has not been built; `npm run build:web` in the project's folder does that.\n"),
    );
    return;
  }
  const files = serveStatic<ServerEnv>({
    root: folder,
    onFound: (path, c) => {
      c.header("cache-control", hashed.test(path) ? "public, max-age=31536000, immutable" : "no-cache");
    },
  });
  app.use(files);
}
