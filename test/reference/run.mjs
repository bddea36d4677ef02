/**
 * Checks a folder of the golden layout and prints the largest deviation of each quantity:
 * `npm run test:reference -- FOLDER` (by default the sets that come with the project).
 */
import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";

const root = join(import.meta.dirname, "..", "..");
const folder = resolve(process.argv[2] ?? join(import.meta.dirname, "golden"));
if (!holdsGoldens(folder)) {
  console.error(`${folder} holds no goldens: there is no goldens.json in it, nor in a folder directly below it`);
  process.exit(2);
}

const scratch = mkdtempSync(join(tmpdir(), "minigpt4-reference-"));
const table = join(scratch, "deviations.txt");
const vitest = join(dirname(createRequire(import.meta.url).resolve("vitest/package.json")), "vitest.mjs");
const { status } = spawnSync(process.execPath, [vitest, "run", "test/reference"], {
  cwd: root,
  env: { ...process.env, MINIGPT4_GOLDENS: folder, MINIGPT4_DEVIATIONS: table },
  stdio: "inherit",
});
if (existsSync(table)) console.log(readFileSync(table, "utf8").split("\n").sort().join("\n").trim());
rmSync(scratch, { recursive: true });
process.exit(status ?? 1);

/** @param {string} path */
function holdsGoldens(path) {
  if (!existsSync(path)) return false;
  return [path, ...readdirSync(path).map((name) => join(path, name))].some((set) =>
    existsSync(join(set, "goldens.json")),
  );
}
