/** Serves the static files of the page. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { serveStatic } from "@hono/node-server/serve-static";
import type { Hono } from "hono";
import { secureHeaders } from "hono/secure-headers";
import type { ServerEnv } from "./server-context.ts";

/** Files with a content hash in their name, as Vite writes them: `assets/index-BxT3_k9a.js`. */
const hashedFile = /[\\/]assets[\\/][^\\/]+-[\w-]{8,}\.\w+$/;

/** Allows the server's own files only, plus blob and data URLs for the visitor's images, and WebAssembly for the runtime. */
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

/** Serves a folder at `/`. If the page has not been built, `/` says how to build it. */
export function addPage(app: Hono<ServerEnv>, folder: string): void {
  app.use(headers);
  if (!existsSync(join(folder, "index.html"))) {
    app.get("/", (c) => c.text("The page has not been built. Run `npm run build:web` in the project's folder.\n"));
    return;
  }
  const files = serveStatic<ServerEnv>({
    root: folder,
    onFound: (path, c) => {
      c.header("cache-control", hashedFile.test(path) ? "public, max-age=31536000, immutable" : "no-cache");
    },
  });
  app.use(files);
}
