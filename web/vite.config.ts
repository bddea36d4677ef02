/** How the page is built into dist/web, and served while one works on it (`npm run dev:page`, beside `minigpt4 serve`). */
import preact from "@preact/preset-vite";
import { defineConfig } from "vite";

const server = "http://127.0.0.1:8000";

export default defineConfig({
  root: import.meta.dirname,
  // Relative addresses, so that the page also works below a path or as a folder of a static site.
  base: "./",
  plugins: [preact()],
  build: {
    outDir: "../dist/web",
    emptyOutDir: true,
    // Everything is a file of its own: the server's content policy allows no data: addresses but for images.
    assetsInlineLimit: 0,
    target: "es2022",
  },
  // The engine's worker loads its runtime as a module when it knows which one the browser can use.
  worker: { format: "es" },
  server: {
    fs: { allow: [".."] },
    proxy: Object.fromEntries(["/v1", "/health", "/api"].map((path) => [path, server])),
  },
});
