/** Builds the page into dist/web, and serves it with hot reload (`npm run dev:page`, next to a running `minigpt4 serve`). */
import preact from "@preact/preset-vite";
import { defineConfig } from "vite";

const server = "http://127.0.0.1:8000";

export default defineConfig({
  root: import.meta.dirname,
  // Relative URLs, so that the page also works in a subfolder of a site.
  base: "./",
  plugins: [preact()],
  build: {
    outDir: "../dist/web",
    emptyOutDir: true,
    // No inlined assets: the server's content security policy allows data: URLs for images only.
    assetsInlineLimit: 0,
    target: "es2022",
  },
  // The worker imports the runtime dynamically, which needs modules.
  worker: { format: "es" },
  server: {
    fs: { allow: [".."] },
    proxy: Object.fromEntries(["/v1", "/health", "/api"].map((path) => [path, server])),
  },
});
