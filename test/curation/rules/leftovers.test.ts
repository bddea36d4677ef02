import { describe, expect, test } from "vitest";
import { broken, found, rulesFiles } from "../../helpers/judging.ts";

test.each([
  ["A cat. ### Human: what else?", 'has a mark of a prompt, "###"'],
  ["<Img></Img> A cat sits on a chair.", 'has a mark of a prompt, "<Img>"'],
  ["A cat sits on a chair.</s>", 'has a mark of a prompt, "</s>"'],
  ["A cat sits on a chair.<|im_end|>", 'has a mark of a prompt, "<|im_end|>"'],
  ["[INST] Describe it [/INST] A cat.", 'has a mark of a prompt, "[INST]"'],
  ["A cat sits on a chair. Assistant: It is grey.", 'has a speaker, ". Assistant:"'],
  ["A cat, see https://example.org/cat.", 'has an address, "https:"'],
  ["A cat, from www.example.org, sits.", 'has an address, "www."'],
  ["A cat of petshop.com sits on a chair.", 'has an address, "p.com"'],
  ["Write to cat@example.org for a cat.", 'has an address, "t@example.org"'],
  ["A cat <b>sits</b> on a chair.", 'has HTML, "<b>"'],
  ["A cat &amp; a dog sit on a chair.", 'has HTML, "&amp;"'],
  ["A **cat** sits on a chair.", 'has Markdown, "**"'],
  ["# A cat\nIt sits on a chair.", 'has Markdown, "# "'],
  ["A cat.\\nIt sits on a chair.", 'has an escape, "\\n"'],
])("%s", (text, message) => {
  expect(found("leftovers", text)).toBe(message);
});

test.each([
  "A human and an assistant stand at the counter of a shop.",
  "Player number #7 kicks the ball & falls.",
  "It is less than 5 < 6 metres to the door.",
  "The company's sign, AT&T, hangs above the door.",
  "A man looks at the system: a wall of pipes and valves.",
  "A dog runs.It is fast, at 3.5 m a second.",
  "A user of the library reads at a desk in front of a window.",
])("may stay: %s", (text) => {
  expect(found("leftovers", text)).toBeUndefined();
  expect(broken(text)).toEqual([]);
});

describe("patterns", () => {
  const rulesOf = rulesFiles();

  test("can be turned off, changed and added by name", async () => {
    const rules = await rulesOf(
      String.raw`rules: { leftovers: { patterns: { Markdown: false, a date: '\b20\d\d-\d\d' } } }`,
    );
    expect(found("leftovers", "A **cat** sits on a chair.", rules)).toBeUndefined();
    expect(found("leftovers", "A cat sat on a chair on 2023-04-20.", rules)).toBe('has a date, "2023-04"');
    expect(found("leftovers", "A cat.</s>", rules)).toBeDefined();
  });

  test("that RE2 does not support are rejected by name", async () => {
    await expect(rulesOf("rules: { leftovers: { patterns: { ahead: 'a(?=b)' } } }")).rejects.toThrow(
      /\.yaml: leftovers: invalid expression a\(\?=b\): .* \(the syntax is RE2's: no backreferences, no lookaround\)$/,
    );
  });
});
