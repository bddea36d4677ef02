import { existsSync, mkdirSync, readdirSync, readFileSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import {
  isTemporaryOf,
  removeAbandoned,
  replaceFolder,
  streamFileAtomic,
  writeFileAtomic,
} from "../../src/files/atomic.ts";
import { temporaryFolder } from "../helpers/tiny-model.ts";

function stage(...names: string[]) {
  const parent = temporaryFolder();
  const at = (name: string) => join(parent, name);
  for (const name of names) {
    mkdirSync(at(name));
    writeFileSync(join(at(name), "file"), name);
  }
  return { at, replace: () => replaceFolder(at("old"), at("new"), at("former")), left: () => readdirSync(parent) };
}

test.each([[["old", "new"]], [["new"]]])(
  "replaceFolder with %j leaves the new folder at the old path",
  async (names) => {
    const { at, replace, left } = stage(...names);
    await replace();
    expect(left()).toEqual(["old"]);
    expect(readFileSync(join(at("old"), "file"), "utf8")).toBe("new");
  },
);

test("replaceFolder restores the old folder if the new one cannot be moved", async () => {
  const { at, replace, left } = stage("old");
  await expect(replace()).rejects.toThrow("ENOENT");
  expect(left()).toEqual(["old"]);
  expect(readFileSync(join(at("old"), "file"), "utf8")).toBe("old");
});

describe("writeFileAtomic", () => {
  test("replaces the file and leaves nothing else", async () => {
    const folder = temporaryFolder();
    const path = join(folder, "file");
    writeFileSync(path, "old");
    await writeFileAtomic(path, async (file) => {
      await file.writeFile("new");
      expect(readFileSync(path, "utf8")).toBe("old");
    });
    expect(readFileSync(path, "utf8")).toBe("new");
    await writeFileAtomic(path, Uint8Array.of(49, 50));
    expect(readFileSync(path, "utf8")).toBe("12");
    expect(readdirSync(folder)).toEqual(["file"]);
  });

  test("keeps the old file if writing fails", async () => {
    const folder = temporaryFolder();
    const path = join(folder, "file");
    writeFileSync(path, "old");
    const fail = async () => {
      throw new Error("no more data");
    };
    await expect(writeFileAtomic(path, fail)).rejects.toThrow("no more data");
    expect(readFileSync(path, "utf8")).toBe("old");
    expect(readdirSync(folder)).toEqual(["file"]);
  });

  test("flushes the file before it is renamed", async () => {
    const calls: string[] = [];
    const path = join(temporaryFolder(), "file");
    await writeFileAtomic(path, async (file) => {
      const sync = file.sync.bind(file);
      file.sync = async () => {
        calls.push(existsSync(path) ? "after" : "before");
        await sync();
      };
    });
    expect(calls).toEqual(["before"]);
  });
});

test("streamFileAtomic counts and hashes what it writes, and stops when it is aborted", async () => {
  const folder = temporaryFolder();
  const chunks = async function* () {
    yield Buffer.from("ab");
    yield Buffer.from("c");
  };
  const counted: number[] = [];
  const written = await streamFileAtomic(join(folder, "abc"), chunks(), { onBytes: (bytes) => counted.push(bytes) });
  expect(written).toEqual({ bytes: 3, sha256: "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" });
  expect(counted).toEqual([2, 1]);
  const signal = AbortSignal.abort(new Error("Ctrl-C"));
  await expect(streamFileAtomic(join(folder, "other"), chunks(), { signal })).rejects.toThrow("Ctrl-C");
  expect(readdirSync(folder)).toEqual(["abc"]);
});

test("removeAbandoned deletes old temporary files and folders, and nothing else", async () => {
  const folder = temporaryFolder();
  const at = (name: string) => join(folder, name);
  const old = new Date(0);
  for (const name of ["a.1.partial", "a.2.partial", "b.1.partial", "a"]) writeFileSync(at(name), "");
  for (const name of ["a.3.partial", "a.4.partial"]) {
    mkdirSync(at(name));
    writeFileSync(join(at(name), "inner"), "");
  }
  utimesSync(join(at("a.3.partial"), "inner"), old, old);
  for (const name of ["a.1.partial", "b.1.partial", "a", "a.3.partial", "a.4.partial"]) utimesSync(at(name), old, old);
  await removeAbandoned(folder, (name) => isTemporaryOf(at("a"), name));
  // a.2 is young, and so is a file in a.4.
  expect(readdirSync(folder).sort()).toEqual(["a", "a.2.partial", "a.4.partial", "b.1.partial"]);
  await removeAbandoned(folder, (name) => isTemporaryOf(at("a"), name), { olderThan: 0 });
  expect(readdirSync(folder).sort()).toEqual(["a", "b.1.partial"]);
  await removeAbandoned(at("missing"), () => true);
});
