/** A text as it is, whatever it holds, or what was changed in it. */
import { useWords } from "../shell/language.ts";
import type { Piece } from "./changes.ts";
import { stretchesOf } from "./visible.ts";
import { reviewWords } from "./words.ts";

/** Characters that would not be seen, or would turn the text around, are shown by their codes. */
export function PlainText({ text }: { text: string }) {
  const t = useWords(reviewWords);
  return (
    <>
      {stretchesOf(text).map(({ text: part, hidden }, i) =>
        hidden ? (
          <code key={i} class="hidden-character" title={t.hidden}>
            {part}
          </code>
        ) : (
          part
        ),
      )}
    </>
  );
}

/** With what was removed and added; screen readers are told which is which. */
export function ChangedText({ pieces }: { pieces: readonly Piece[] }) {
  const t = useWords(reviewWords);
  return (
    <>
      {pieces.map(({ kind, text }, i) => {
        const plain = <PlainText text={text} />;
        // biome-ignore-start lint/suspicious/noArrayIndexKey: a piece is nothing but its place
        if (kind === "same") return <span key={i}>{plain}</span>;
        const Tag = kind === "added" ? "ins" : "del";
        return (
          <Tag key={i}>
            <span class="unseen">[{kind === "added" ? t.added : t.removed}: </span>
            {plain}
            <span class="unseen">]</span>
          </Tag>
        );
        // biome-ignore-end lint/suspicious/noArrayIndexKey: a piece is nothing but its place
      })}
    </>
  );
}
