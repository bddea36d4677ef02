import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeEach, expect, test } from "vitest";
import { pairStatus } from "../../../src/curation/decisions.ts";
import type { CurationStore } from "../../../src/curation/store.ts";
import { minigpt4 } from "../../helpers/cli-command.ts";
import { described, openProject } from "../../helpers/curation-projects.ts";
import { temporaryFolder } from "../../helpers/tiny-model.ts";

const folder = temporaryFolder();
let store: CurationStore;
let project: string;
let count = 0;
beforeEach(() => {
  const name = `${count++}.db`;
  project = join(folder, name);
  store = openProject(folder, name);
  described(store, "A black dog runs through the snow.", 0);
  described(store, "As an AI language model, I cannot see \u001bc images.", 1);
});

test("drops texts, and reports how many and why", async () => {
  const args = ["curate", "filter", "--project", project];
  const dry = await minigpt4([...args, "--dry-run"]);
  expect(dry.code).toBe(0);
  expect(dry.stdout).toContain("2 texts judged (dry run, nothing written), 0 judged before");
  expect(store.entries().map(pairStatus)).toEqual(["open", "open"]);
  const { code, stdout } = await minigpt4(args);
  expect(code).toBe(0);
  expect(stdout.split("\n").slice(0, 2)).toEqual([
    "2 texts judged, 0 judged before, 0 images without text",
    "1 pass, 1 dropped",
  ]);
  expect(stdout).toMatch(/^ {7}1 {2}self_talk +1\.jpg: says "as an AI"$/m);
  expect(stdout).not.toContain("\u001b");
  expect(store.entries().map(pairStatus)).toEqual(["open", "dropped"]);
  expect((await minigpt4(args)).stdout).toContain("0 texts judged, 2 judged before");
});

test("reads rules from a file, and reports as JSON", async () => {
  const rules = join(folder, "rules.yaml");
  writeFileSync(
    rules,
    "rules: { self_talk: false, meaningless_characters: false }\nown: [{ name: no dogs, pattern: dog }]",
  );
  const { stdout } = await minigpt4(["curate", "filter", "--project", project, "--rules", rules, "--json"]);
  expect(JSON.parse(stdout)).toMatchObject({
    judged: 2,
    kept: 1,
    dropped: [{ image: 1, name: "0.jpg", reasons: [{ rule: "no dogs", message: 'has "dog"' }] }],
    broken: { "no dogs": 1 },
  });
});

test("reports errors in one line", async () => {
  const rules = join(folder, "wrong.yaml");
  writeFileSync(rules, "rules: { apologys: false }");
  const wrong = await minigpt4(["curate", "filter", "--project", project, "--rules", rules]);
  expect(wrong).toMatchObject({ code: 1, stdout: "" });
  expect(wrong.stderr).toMatch(/^error: .*wrong\.yaml: rules: .*apologys.*\n$/);
  const gone = await minigpt4(["curate", "filter", "--project", join(folder, "gone.db")]);
  expect(gone.stderr).toMatch(/^error: .*gone\.db does not exist; .*\n$/);
});
