/** Markup as elements; nothing of the model's text is ever read as HTML. */
import type { JSX } from "preact";
import { useMemo } from "preact/hooks";
import { type Block, type Inline, parseMarkup } from "./markup.ts";

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
