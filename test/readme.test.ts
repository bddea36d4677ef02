/** The README in two languages: what does not depend on the language is the same in both. */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";

const root = join(import.meta.dirname, "..");
const names = ["README.md", "README.zh-CN.md"] as const;
const [english, chinese] = names.map((name) => readFileSync(join(root, name), "utf8"));

/** What a reader of any language sees alike. */
function skeleton(text = "") {
  const code = [...text.matchAll(/^```(\w*)\n(.*?)^```$/gms)].map(([, language, lines = ""]) => ({
    language,
    lines: lines.split("\n").map((line) => line.replace(/\s+(#|\/\/) .*$/, "")),
  }));
  const prose = text.replace(/^```.*?^```$/gms, "");
  return {
    headings: [...prose.matchAll(/^#+ /gm)].map(([mark]) => mark),
    code,
    rows: [...prose.matchAll(/^\|.*\|$/gm)].length,
    // A sentence may need a name twice in one language and once in the other.
    inlineCode: [...new Set([...prose.matchAll(/`([^`]+)`/g)].map(([, words]) => words))].sort(),
    links: [...prose.matchAll(/\]\(([^)]+)\)/g)]
      .map(([, target]) => target)
      .filter((target) => !names.some((name) => name === target))
      .sort(),
  };
}

test("both have the same headings, code, tables and links", () => {
  expect(skeleton(english).code.length).toBeGreaterThan(3);
  expect(skeleton(chinese)).toEqual(skeleton(english));
});

test("each leads to the other, and no link leads nowhere", () => {
  expect(english).toContain("[简体中文](README.zh-CN.md)");
  expect(chinese).toContain("[English](README.md)");
  for (const target of skeleton(english).links) {
    if (!target?.startsWith("https://")) expect(existsSync(join(root, target ?? "")), target).toBe(true);
  }
});
