import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { replaceFolder } from "../../src/files/atomic.ts";
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

test.each([[["old", "new"]], [["new"]]])("of %j the new one is left, in the place of the old one", async (names) => {
  const { at, replace, left } = stage(...names);
  await replace();
  expect(left()).toEqual(["old"]);
  expect(readFileSync(join(at("old"), "file"), "utf8")).toBe("new");
});

test("where the new one cannot be moved the old one is as it was", async () => {
  const { at, replace, left } = stage("old");
  await expect(replace()).rejects.toThrow("ENOENT");
  expect(left()).toEqual(["old"]);
  expect(readFileSync(join(at("old"), "file"), "utf8")).toBe("old");
});
