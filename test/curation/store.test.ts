import { spawn } from "node:child_process";
import { copyFileSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import Database from "libsql";
import { beforeEach, describe, expect, test } from "vitest";
import { pairStatus, reviewersAgree } from "../../src/curation/decisions.ts";
import type { NewVerdict, VersionDetails } from "../../src/curation/entry.ts";
import { StaleVersionError } from "../../src/curation/entry.ts";
import { CurationStore } from "../../src/curation/store.ts";
import { described, openProject, someImages } from "../helpers/curation-projects.ts";
import { temporaryFolder } from "../helpers/tiny-model.ts";

const folder = temporaryFolder();
let count = 0;
let name = "";
beforeEach(() => {
  name = `${count++}.db`;
});

test("adds each image once", () => {
  const store = openProject(folder, name);
  expect(store.addImages(someImages(3))).toBe(3);
  expect(store.addImages(someImages(5))).toBe(2);
  const tarred = {
    name: "a.tar/1",
    source: { path: "a.tar", range: { offset: 512, length: 99 } },
    sha256: "f".repeat(64),
  };
  expect(store.addImages([tarred])).toBe(1);
  const entries = store.entries();
  expect(entries.map(({ image }) => image.name)).toEqual(["0.jpg", "1.jpg", "2.jpg", "3.jpg", "4.jpg", "a.tar/1"]);
  expect(entries.at(-1)?.image).toEqual({ id: 6, ...tarred });
  expect(entries.every(({ current, versions }) => current === undefined && versions === 0)).toBe(true);
});

test("keeps all versions; the last one is current", () => {
  const store = openProject(folder, name);
  const { image, version } = described(store, "a  cat .");
  const polished = store.addVersion({
    image,
    parent: version,
    kind: "polished",
    text: "A cat.",
    author: "smollm2",
    prompt: "Fix it.",
    details: { promptTokens: 40, completionTokens: 3, cost: 0.1 },
  });
  const entry = store.entry(image);
  expect(entry?.current).toEqual(polished);
  expect(polished).toMatchObject({ parent: version, prompt: "Fix it.", details: { cost: 0.1 } });
  expect(store.versions(image).map(({ text }) => text)).toEqual(["a  cat .", "A cat."]);
  expect(entry?.versions).toBe(2);
  expect(store.entry(99)).toBeUndefined();
});

test("replaces null characters, at which SQLite would truncate the text", () => {
  const store = openProject(folder, name);
  const { image } = described(store, "a cat\0 and a dog");
  expect(store.entry(image)?.current?.text).toBe("a cat\ufffd and a dog");
});

test("rejects an edit of a stale version", () => {
  const [one, two] = [openProject(folder, name), openProject(folder, name)];
  const { image, version } = described(one, "a cat");
  const edit = { image, parent: version, kind: "edited" as const };
  const first = one.addVersion({ ...edit, text: "a grey cat", author: "one" });
  const second = () => two.addVersion({ ...edit, text: "a tabby cat", author: "two" });
  expect(second).toThrow(StaleVersionError);
  expect(second).toThrow("The text has been changed by one; review the new version");
  expect(() => two.addVerdict({ version, decision: "keep", judge: "person", author: "two" })).toThrow(
    StaleVersionError,
  );
  expect(two.addVersion({ ...edit, parent: first.id, text: "a tabby cat", author: "two" }).parent).toBe(first.id);
  expect(one.versions(image).map(({ text }) => text)).toEqual(["a cat", "a grey cat", "a tabby cat"]);
});

describe("the status of a pair", () => {
  type Say = Pick<NewVerdict, "decision" | "judge" | "author">;
  const rules = (decision: "keep" | "drop"): Say => ({ decision, judge: "rules", author: "rules" });
  const person = (author: string, decision: NewVerdict["decision"]): Say => ({ decision, judge: "person", author });

  test.each([
    ["nobody said anything", [], "open", undefined],
    ["rules have nothing against it", [rules("keep")], "open", undefined],
    ["rules drop it", [rules("drop")], "dropped", undefined],
    ["a person keeps what rules drop", [rules("drop"), person("a", "keep")], "kept", undefined],
    ["rules come after a person", [person("a", "keep"), rules("drop")], "kept", undefined],
    ["a person takes a word back", [person("a", "drop"), person("a", "withdrawn")], "open", undefined],
    ["a person changes their mind", [person("a", "drop"), person("a", "keep")], "kept", undefined],
    ["and takes that back", [person("a", "drop"), person("a", "keep"), person("a", "withdrawn")], "dropped", undefined],
    ["two agree", [person("a", "keep"), person("b", "keep")], "kept", true],
    ["two disagree, the later counts", [person("a", "keep"), person("b", "drop")], "dropped", false],
    ["the first says it again", [person("a", "keep"), person("b", "drop"), person("a", "keep")], "kept", false],
  ] as const)("%s", (_, verdicts, standing, agreement) => {
    const store = openProject(folder, name);
    const { image, version } = described(store, "a cat");
    for (const verdict of verdicts) store.addVerdict({ ...verdict, version });
    const entry = store.entry(image);
    if (!entry) throw new Error("no entry");
    expect(pairStatus(entry)).toBe(standing);
    expect(reviewersAgree(entry)).toBe(agreement);
    expect(store.entries()).toEqual([entry]);
  });

  test("verdicts of rules apply to one version, those of persons to all", () => {
    const store = openProject(folder, name);
    const { image, version } = described(store, "I'm sorry");
    store.addVerdict({ ...rules("drop"), version, reasons: [{ rule: "apology", message: "I'm sorry" }] });
    expect(store.entry(image)?.rules?.reasons).toEqual([{ rule: "apology", message: "I'm sorry" }]);
    const edited = store.addVersion({ image, parent: version, kind: "edited", text: "a cat", author: "a" });
    expect(store.entry(image)?.rules).toBeUndefined();
    store.addVerdict({ ...person("a", "keep"), version: edited.id });
    store.addVersion({ image, parent: edited.id, kind: "edited", text: "a cat.", author: "b" });
    expect(store.entry(image)?.persons.map(({ author }) => author)).toEqual(["a"]);
  });

  test("no text is empty", () => {
    const store = openProject(folder, name);
    store.addImages(someImages(1));
    expect(store.entries().map(pairStatus)).toEqual(["empty"]);
    expect(() => store.addVerdict({ ...rules("keep"), version: 5 })).toThrow("Version 5 does not exist");
  });
});

test("sums the known tokens of all versions of a kind", () => {
  const store = openProject(folder, name);
  expect(store.countTokens("polished")).toBe(0);
  const { image, version } = described(store, "a cat");
  const add = (parent: number, details: VersionDetails) =>
    store.addVersion({ image, parent, kind: "polished", text: "A cat.", author: "m", details }).id;
  add(add(add(version, { promptTokens: 40, completionTokens: 3 }), { completionTokens: 5 }), {});
  expect(store.countTokens("polished")).toBe(48);
  expect(store.countTokens("described")).toBe(0);
});

test("counts failures until the text changes", () => {
  const store = openProject(folder, name);
  store.addImages(someImages(1));
  store.addFailure(1, "describe", "out of memory");
  store.addFailure(1, "describe", "no image");
  store.addFailure(1, "polish", "429");
  expect(store.failures("describe").get(1)).toEqual({ times: 2, message: "no image" });
  expect(store.failures("export").size).toBe(0);
});

test("reads back any text, including SQL and code", () => {
  const store = openProject(folder, name);
  fc.assert(
    fc.property(fc.string({ unit: "binary" }), fc.string({ unit: "grapheme" }), (text, author) => {
      const { image } = store.entries().at(-1) ?? {};
      const entry = store.entries().at(-1);
      if (!image || !entry?.current) described(store, "'; DROP TABLE versions; --");
      const current = store.entries().at(-1)?.current;
      if (!current) throw new Error("no version");
      const { isWellFormed } = String.prototype as unknown as { isWellFormed?: () => boolean };
      fc.pre(isWellFormed?.call(text) ?? !/[\ud800-\udfff]/.test(text));
      fc.pre(!text.includes("\0") && !author.includes("\0"));
      const next = store.addVersion({ image: current.image, parent: current.id, kind: "edited", text, author });
      expect(next).toMatchObject({ text, author });
    }),
  );
});

describe("the project file", () => {
  test("refuses changes and deletions, even by other programs", () => {
    const store = openProject(folder, name);
    const { version } = described(store, "a cat");
    store.addVerdict({ version, decision: "keep", judge: "person", author: "a" });
    const database = new Database(join(folder, name));
    for (const table of ["versions", "verdicts"]) {
      expect(() => database.exec(`UPDATE ${table} SET author = 'x'`)).toThrow("never changed");
      expect(() => database.exec(`DELETE FROM ${table}`)).toThrow("never removed");
    }
    database.close();
  });

  test("is rejected if it is missing, not a project, or of a newer version", () => {
    expect(() => CurationStore.open(join(folder, "gone.db"))).toThrow("gone.db does not exist");
    expect(() => CurationStore.open(join(folder, "gone", "a.db"), { create: true })).toThrow(
      "The folder of the project",
    );
    const text = join(folder, `text-${name}`);
    writeFileSync(text, "this is no database, but long enough to be one ".repeat(100));
    expect(() => CurationStore.open(text)).toThrow(/is not a curation project, or is corrupted/);
    const other = new Database(join(folder, name));
    other.exec("CREATE TABLE songs (title TEXT)");
    other.close();
    const before = readFileSync(join(folder, name));
    expect(() => CurationStore.open(join(folder, name))).toThrow("is an SQLite database, but not a curation project");
    expect(readFileSync(join(folder, name)).equals(before)).toBe(true);
    const newer = join(folder, `newer-${name}`);
    openProject(folder, `newer-${name}`);
    const database = new Database(newer);
    database.exec("PRAGMA user_version = 99");
    database.close();
    expect(() => CurationStore.open(newer)).toThrow(/written by a newer minigpt4 .*version 99/);
  });

  describe("of version 0.1", () => {
    const open = () => {
      copyFileSync(join(import.meta.dirname, "fixtures/project-0.1.db"), join(folder, name));
      return openProject(folder, name);
    };

    test("is read with everything in it", () => {
      const store = open();
      const entries = store.entries();
      expect(entries.map(({ image }) => image.name)).toEqual(["0.jpg", "1.jpg", "2.jpg", "3.jpg", "a.tar/4"]);
      expect(entries[4]?.image.source).toEqual({ path: "/photos/a.tar", range: { offset: 512, length: 99 } });
      expect(entries.map(({ current }) => current?.text)).toEqual([
        "A cat.",
        "I'm sorry I made a mistake.",
        "A dog runs.",
        undefined,
        undefined,
      ]);
      expect(entries.map(pairStatus)).toEqual(["kept", "dropped", "dropped", "empty", "empty"]);
      expect(store.versions(1)).toMatchObject([
        { kind: "described", author: "nano", prompt: "paper", details: { duration: 1500, continuations: ["added"] } },
        { kind: "polished", author: "smollm2", parent: 1, prompt: "Fix it.", details: { stripped: ["quotes"] } },
      ]);
      expect(store.verdicts(2)).toMatchObject([{ judge: "rules", decision: "drop", reasons: [{ rule: "apologies" }] }]);
      expect(store.verdicts(3)).toMatchObject([{ judge: "person", author: "ben", decision: "drop" }]);
      expect(store.failures("describe").get(4)).toEqual({ times: 1, message: "no image" });
      expect(store.countTokens("polished")).toBe(220);
    });

    test("can be continued, still refuses changes, and has tables of version 2", () => {
      const store = open();
      const parent = store.entry(1)?.current?.id;
      store.addVersion({ image: 1, parent, kind: "edited", text: "A grey cat.", author: "ada" });
      store.addFailure(5, "describe", "gone");
      expect(store.addImages(someImages(5))).toBe(1);
      store.close();
      const database = new Database(join(folder, name));
      for (const table of ["versions", "verdicts"]) {
        expect(() => database.exec(`UPDATE ${table} SET author = 'x'`)).toThrow("never changed");
        expect(() => database.exec(`DELETE FROM ${table}`)).toThrow("never removed");
      }
      expect(database.prepare("PRAGMA user_version").get()).toMatchObject({ user_version: 2 });
      database.close();
    });
  });

  test("several processes write concurrently without losses", async () => {
    const store = openProject(folder, name);
    store.addImages(someImages(1));
    const writer = join(import.meta.dirname, "../helpers/curation-writer.ts");
    const processes = ["a", "b", "c"].map((author) =>
      spawn(process.execPath, ["--import", "tsx", writer, join(folder, name), author, "20"], { stdio: "inherit" }),
    );
    const codes = await Promise.all(processes.map((child) => new Promise((resolve) => child.once("exit", resolve))));
    expect(codes).toEqual([0, 0, 0]);
    const versions = store.versions(1);
    expect(versions).toHaveLength(60);
    // A chain: each was made of the one before.
    expect(versions.map(({ parent }) => parent)).toEqual([undefined, ...versions.map(({ id }) => id).slice(0, -1)]);
  });
});
