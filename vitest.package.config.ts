import { defineConfig } from "vitest/config";

/** The package as users install it: packs it, and installs it from the registry. */
export default defineConfig({
  test: {
    include: ["test/package/**/*.test.ts"],
    pool: "forks",
    maxWorkers: 1,
    testTimeout: 300_000,
    hookTimeout: 600_000,
  },
});
