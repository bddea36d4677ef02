import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { z } from "zod";
import { describeError, quote } from "../../src/files/errors.ts";
import { parseJson } from "../../src/files/json.ts";
import { readJsonFile, writeJsonFile } from "../../src/files/json-file.ts";
import { temporaryFolder } from "../helpers/tiny-model.ts";

const schema = z.object({ layers: z.array(z.object({ width: z.number() })) });

describe("readJsonFile", () => {
  const path = join(temporaryFolder(), "config.json");

  test("reads what writeJsonFile wrote", async () => {
    await writeJsonFile(path, { layers: [{ width: 3 }] });
    expect(readFileSync(path, "utf8").endsWith("}\n")).toBe(true);
    expect(await readJsonFile(path, schema)).toEqual({ layers: [{ width: 3 }] });
  });

  test.each([
    ["a wrong key", '{"layers": [{"width": "3"}]}', /config\.json: .*expected number[\s\S]*layers\[0\]\.width/],
    ["malformed JSON", '{"layers"', /config\.json: is not valid JSON: .*/],
    ["bytes that are not UTF-8", Uint8Array.of(0x22, 0xff, 0x22), /config\.json: is not valid JSON: it is not UTF-8/],
  ])("names the file and the place of %s", async (_, content, message) => {
    writeFileSync(path, content);
    await expect(readJsonFile(path, schema)).rejects.toThrow(message);
  });

  test("lists the first five of many wrong keys", async () => {
    await writeJsonFile(path, { layers: Array.from({ length: 9 }, () => ({})) });
    const message = await readJsonFile(path, schema).catch((error: Error) => error.message);
    expect(message).toMatch(/layers\[4\]\.width\n\.\.\. and 4 more$/);
  });

  test("names a missing file and a folder", async () => {
    const folder = temporaryFolder();
    await expect(readJsonFile(join(folder, "none.json"))).rejects.toThrow(
      "none.json cannot be read: no such file or folder",
    );
    await expect(readJsonFile(folder)).rejects.toThrow(`${folder}: not a regular file`);
  });
});

test("parseJson refuses deep nesting and values that would fill the memory", () => {
  const bytes = (text: string) => new TextEncoder().encode(text);
  expect(parseJson(bytes(`${"[".repeat(16)}${"]".repeat(16)}`))).toBeInstanceOf(Array);
  expect(() => parseJson(bytes(`${"[".repeat(17)}${"]".repeat(17)}`))).toThrow("nested more than 16 deep");
  expect(() => parseJson(bytes(`[${"0,".repeat(10_000_001)}0]`))).toThrow("more than 10000000 values");
});

test("errors quote untrusted text in one bounded, printable line", () => {
  expect(quote("a\u001b[31m\u202eb\n")).toBe('"a\\u001b[31m\\u202eb\\n"');
  expect(quote("x".repeat(1000))).toBe(`"${"x".repeat(100)}..."`);
  expect(quote("a\u0085b\u007f")).toBe('"a\\u0085b\\u007f"');
});

test.each([
  ["ENOSPC", "/a: the disk is full"],
  ["EROFS", "/a: the disk is read-only"],
  ["EMFILE", "too many open files"],
])("describes %s", (code, expected) => {
  expect(describeError(Object.assign(new Error("too many open files"), { code, path: "/a" }))).toBe(expected);
});
