/** The Markdown of answers. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { type Block, type Inline, parseInline, parseMarkup } from "../../web/chat/markup.tsx";

const plain = (text: string): Inline[] => [{ kind: "text", text }];

test("paragraphs keep their line breaks", () => {
  expect(parseMarkup("one\ntwo\n\n\nthree")).toEqual([
    { kind: "paragraph", lines: [plain("one"), plain("two")] },
    { kind: "paragraph", lines: [plain("three")] },
  ]);
});

test("lists, with blank lines between items and any start number", () => {
  expect(parseMarkup("See:\n- a\n\n- b\n3. c\n4) d")).toEqual([
    { kind: "paragraph", lines: [plain("See:")] },
    { kind: "list", ordered: false, start: 1, items: [plain("a"), plain("b")] },
    { kind: "list", ordered: true, start: 3, items: [plain("c"), plain("d")] },
  ]);
});

test("code blocks are verbatim, even when unfinished", () => {
  const code: Block = { kind: "code", text: "  a **b**\n- c" };
  expect(parseMarkup("```ts\n  a **b**\n- c\n```")).toEqual([code]);
  expect(parseMarkup("```\n  a **b**\n- c")).toEqual([code]);
});

test("bold and code in a line; incomplete markup is text", () => {
  expect(parseInline("a **bold** and `x*y`")).toEqual([
    { kind: "text", text: "a " },
    { kind: "bold", text: "bold" },
    { kind: "text", text: " and " },
    { kind: "code", text: "x*y" },
  ]);
  expect(parseInline("a **bol")).toEqual(plain("a **bol"));
  expect(parseInline("2 ** 3 ** 4")).toEqual(plain("2 ** 3 ** 4"));
});

test("HTML is text", () => {
  const html = '<img src="x" onerror="alert(1)"><script>alert(2)</script>';
  expect(parseMarkup(html)).toEqual([{ kind: "paragraph", lines: [plain(html)] }]);
});

test("no text is lost", () => {
  const marks = fc.constantFrom("**", "`", "```", "- ", "1. ", "\n", "\n\n", " ", "<b>", "word");
  fc.assert(
    fc.property(fc.array(fc.oneof(marks, fc.string()), { maxLength: 30 }), (pieces) => {
      const text = pieces.join("");
      const shown = parseMarkup(text)
        .flatMap((block) => {
          if (block.kind === "code") return [block.text];
          const rows = block.kind === "list" ? block.items : block.lines;
          return rows.flat().map((piece) => piece.text);
        })
        .join("");
      const letters = (some: string) => some.replace(/[^a-z]/gi, "");
      // The language after an opening fence is not shown.
      if (!text.includes("```")) expect(letters(shown)).toBe(letters(text));
    }),
  );
});

test("long malformed markup parses in linear time", () => {
  const started = performance.now();
  parseMarkup("**a".repeat(20_000) + "`".repeat(20_000));
  expect(performance.now() - started).toBeLessThan(1000);
});
