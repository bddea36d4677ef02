import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeEach, describe, expect, test } from "vitest";
import { pairStatus } from "../../src/curation/decisions.ts";
import { applyRules } from "../../src/curation/filter.ts";
import { type RuleSet, readRules } from "../../src/curation/rules/rule-set.ts";
import type { CurationStore } from "../../src/curation/store.ts";
import { described, openProject, someImages } from "../helpers/curation-projects.ts";
import { temporaryFolder } from "../helpers/tiny-model.ts";

const folder = temporaryFolder();
const good = "A black dog runs through the snow.";
const bad = "I'm sorry I made a mistake...";
const rules = await readRules();
const lenient = await rulesFrom("lenient.yaml", "rules: { apologies: false, unfinished: false }");

let store: CurationStore;
let count = 0;
beforeEach(() => {
  store = openProject(folder, `${count++}.db`);
});

function rulesFrom(name: string, yaml: string): Promise<RuleSet> {
  writeFileSync(join(folder, name), yaml);
  return readRules(join(folder, name));
}

test("judges every text, with reasons", async () => {
  described(store, good, 0);
  described(store, bad, 1);
  store.addImages(someImages(3));
  const report = await applyRules(store, rules);
  const reasons = [
    { rule: "apologies", message: `says "I'm sorry I made a mistake"` },
    { rule: "unfinished", message: `ends without a full stop: "${bad}"` },
  ];
  expect(report).toEqual({
    rules: rules.digest,
    judged: 2,
    known: 0,
    empty: 1,
    kept: 1,
    dropped: [{ image: 2, name: "1.jpg", text: bad, reasons }],
    broken: { apologies: 1, unfinished: 1 },
  });
  const entries = store.entries();
  expect(entries.map(pairStatus)).toEqual(["open", "dropped", "empty"]);
  expect(entries.map((entry) => entry.rules?.decision)).toEqual(["keep", "drop", undefined]);
  expect(entries[1]?.rules).toMatchObject({ judge: "rules", author: rules.digest, reasons });
});

describe("the same rules", () => {
  test("judge a text once, and a new version of it again", async () => {
    const { image, version } = described(store, bad);
    const first = await applyRules(store, rules);
    const verdict = store.entry(image)?.rules;
    const second = await applyRules(store, rules);
    expect(second).toEqual({ ...first, judged: 0, known: 1 });
    expect(store.entry(image)?.rules).toEqual(verdict);
    store.addVersion({ image, parent: version, kind: "polished", text: good, author: "smollm2" });
    expect(await applyRules(store, rules)).toMatchObject({ judged: 1, known: 0, kept: 1, dropped: [] });
  });

  test("continue after an interruption", async () => {
    for (let i = 0; i < 45; i++) described(store, good, i);
    const controller = new AbortController();
    const onProgress = (done: number) => done === 20 && controller.abort(new Error("stopped"));
    await expect(applyRules(store, rules, { signal: controller.signal, onProgress })).rejects.toThrow("stopped");
    const done = store.entries().filter((entry) => entry.rules).length;
    expect(done).toBeGreaterThan(0);
    expect(done).toBeLessThan(45);
    expect(await applyRules(store, rules)).toMatchObject({ judged: 45 - done, known: done, kept: 45 });
  });
});

test("changed rules judge all texts again and override earlier verdicts", async () => {
  const { image } = described(store, bad);
  await applyRules(store, rules);
  expect(await applyRules(store, lenient)).toMatchObject({ rules: lenient.digest, judged: 1, known: 0, kept: 1 });
  const entry = store.entry(image);
  expect(entry && pairStatus(entry)).toBe("open");
  expect(await applyRules(store, rules)).toMatchObject({ judged: 1, dropped: [{ image }] });
});

test("a dry run gives the same report and writes nothing", async () => {
  described(store, good, 0);
  described(store, bad, 1);
  const dry = await applyRules(store, rules, { dryRun: true });
  expect(store.entries().every((entry) => entry.rules === undefined)).toBe(true);
  expect(await applyRules(store, rules)).toEqual(dry);
});

test("decisions of reviewers stay and override rules", async () => {
  const kept = described(store, bad, 0);
  const dropped = described(store, good, 1);
  store.addVerdict({ version: kept.version, decision: "keep", judge: "person", author: "a" });
  store.addVerdict({ version: dropped.version, decision: "drop", judge: "person", author: "a" });
  const before = store.entries().map(({ persons }) => persons);
  await applyRules(store, rules);
  expect(store.entries().map(({ persons }) => persons)).toEqual(before);
  expect(store.entries().map(pairStatus)).toEqual(["kept", "dropped"]);
});
