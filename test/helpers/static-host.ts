/** A host that knows nothing but files, as exported pages are for. */
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { extname, join, normalize } from "node:path";

const types: Readonly<Record<string, string>> = {
  ".html": "text/html",
  ".js": "text/javascript",
  ".css": "text/css",
  ".json": "application/json",
  ".svg": "image/svg+xml",
  ".jpg": "image/jpeg",
  ".wasm": "application/wasm",
};

export interface StaticHost {
  readonly url: string;
  /** Paths that were asked for since the last look. */
  asked(): string[];
  close(): Promise<void>;
}

/** @param headers sent with every file */
export async function hostFolder(folder: string, headers: Readonly<Record<string, string>> = {}): Promise<StaticHost> {
  let asked: string[] = [];
  const server = createServer(async (request, response) => {
    const path = normalize(new URL(request.url ?? "/", "http://host").pathname);
    asked.push(path);
    const file = path === "/" ? "/index.html" : path;
    try {
      const bytes = await readFile(join(folder, file));
      response.writeHead(200, { "content-type": types[extname(file)] ?? "application/octet-stream", ...headers });
      response.end(bytes);
    } catch {
      response.writeHead(404).end();
    }
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/`,
    asked() {
      const seen = asked;
      asked = [];
      return seen;
    },
    close() {
      server.closeAllConnections();
      return new Promise((resolve) => server.close(() => resolve()));
    },
  };
}
