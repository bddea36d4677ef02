/**
 * Compares with the golden files of a folder, and prints the largest deviation of each quantity:
 * `npm run test:reference -- FOLDER` (by default the golden files that come with the project).
 */
import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { findGoldenFiles, findGoldenFolders, testedForms } from "../helpers/golden-forms.ts";

const root = join(import.meta.dirname, "..", "..");
const folder = resolve(process.argv[2] ?? join(import.meta.dirname, "golden"));
const found = findGoldenFolders(folder);
const tested = found.filter(({ form }) => testedForms.includes(form));
for (const { path, form } of found) {
  const note = testedForms.includes(form) ? "tested" : "skipped: not supported yet";
  console.log(`${path}: ${form} (${note})`);
}
if (tested.length + findGoldenFiles(folder).length === 0) {
  console.error(
    found.length > 0
      ? `${folder} has no golden files of a supported form (${testedForms.join(", ")})`
      : `${folder} has no golden files; expected a goldens.json in it or in a folder directly below it`,
  );
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
