import { defineConfig } from "vitest/config";

/** Tests that need another program, such as a terminal or a browser. */
export default defineConfig({
  test: {
    include: ["test/system/**/*.test.ts"],
    pool: "forks",
    maxWorkers: 1,
    testTimeout: 120_000,
  },
});
