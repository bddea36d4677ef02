/** Renders the Markdown that models write: paragraphs, lists, bold, code. Everything else, HTML included, is text. */
import type { JSX } from "preact";
import { useMemo } from "preact/hooks";

export type Inline = { readonly kind: "text" | "bold" | "code"; readonly text: string };

export type Block =
  | { readonly kind: "paragraph"; readonly lines: readonly (readonly Inline[])[] }
  | {
      readonly kind: "list";
      readonly ordered: boolean;
      readonly start: number;
      readonly items: readonly (readonly Inline[])[];
    }
  | { readonly kind: "code"; readonly text: string };

const bullet = /^\s{0,3}[-*•]\s+(?=\S)/;
const numbered = /^\s{0,3}(\d{1,4})[.)]\s+(?=\S)/;
const fence = /^\s{0,3}```/;

/** Parses a text into blocks. Incomplete markup, as in an answer that is still being generated, is text. */
export function parseMarkup(text: string): Block[] {
  const blocks: Block[] = [];
  let paragraph: string[] = [];
  const endParagraph = () => {
    if (paragraph.length > 0) blocks.push({ kind: "paragraph", lines: paragraph.map(parseInline) });
    paragraph = [];
  };
  const lines = text.split(/\r?\n/);
  for (let at = 0; at < lines.length; at++) {
    const line = lines[at] ?? "";
    const mark = numbered.exec(line) ?? bullet.exec(line);
    if (fence.test(line)) {
      endParagraph();
      const end = lines.findIndex((later, i) => i > at && fence.test(later));
      const last = end < 0 ? lines.length : end;
      blocks.push({ kind: "code", text: lines.slice(at + 1, last).join("\n") });
      at = last;
    } else if (mark) {
      endParagraph();
      const item = parseInline(line.slice(mark[0].length));
      const ordered = mark[1] !== undefined;
      const before = blocks.at(-1);
      // An empty line between items does not end a list.
      if (before?.kind === "list" && before.ordered === ordered) {
        blocks[blocks.length - 1] = { ...before, items: [...before.items, item] };
      } else {
        blocks.push({ kind: "list", ordered, start: ordered ? Number(mark[1]) : 1, items: [item] });
      }
    } else if (line.trim() === "") {
      endParagraph();
    } else {
      paragraph.push(line.trim());
    }
  }
  endParagraph();
  return blocks;
}

/** Parses `**bold**` and `` `code` `` in a line. */
export function parseInline(line: string): Inline[] {
  const pieces: Inline[] = [];
  let end = 0;
  for (const match of line.matchAll(/\*\*(?=\S)([^*]*[^\s*])\*\*|`([^`]+)`/g)) {
    if (match.index > end) pieces.push({ kind: "text", text: line.slice(end, match.index) });
    const [all, bold, code] = match;
    pieces.push(bold !== undefined ? { kind: "bold", text: bold } : { kind: "code", text: code ?? "" });
    end = match.index + all.length;
  }
  if (end < line.length) pieces.push({ kind: "text", text: line.slice(end) });
  return pieces;
}

export function MarkupView({ text }: { text: string }) {
  const blocks = useMemo(() => parseMarkup(text), [text]);
  return <>{blocks.map((block, i) => blockView(block, i))}</>;
}

function blockView(block: Block, key: number): JSX.Element {
  switch (block.kind) {
    case "code":
      return (
        <pre key={key}>
          <code>{block.text}</code>
        </pre>
      );
    case "list": {
      const items = block.items.map((item, i) => <li key={i}>{inlineView(item)}</li>);
      return block.ordered ? (
        <ol key={key} start={block.start}>
          {items}
        </ol>
      ) : (
        <ul key={key}>{items}</ul>
      );
    }
    case "paragraph":
      return <p key={key}>{block.lines.map((line, i) => [i > 0 && <br />, ...inlineView(line)])}</p>;
  }
}

function inlineView(pieces: readonly Inline[]) {
  return pieces.map(({ kind, text }, i) => {
    if (kind === "bold") return <strong key={i}>{text}</strong>;
    return kind === "code" ? <code key={i}>{text}</code> : text;
  });
}
