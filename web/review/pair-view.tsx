/** A pair: the image, its text with changes, its verdicts, and earlier versions. */
import { useEffect, useMemo, useState } from "preact/hooks";
import type { Verdict, Version } from "../../src/curation/entry.ts";
import { language, useStrings } from "../shell/preferences.ts";
import { oneOf, preference, useStore } from "../shell/store.ts";
import type { Pair } from "./api.ts";
import { reviewStrings } from "./strings.ts";
import { comparisonBase, diffWords, hasChanges, type Piece, showHidden, splitHidden } from "./text.ts";
import { useImage } from "./use-session.ts";

/** A text with codes for invisible characters, such as bidirectional marks. */
export function PlainText({ text }: { text: string }) {
  const t = useStrings(reviewStrings);
  return (
    <>
      {splitHidden(text).map(({ text: part, hidden }, i) =>
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

/** A text with removed and added pieces, labelled for screen readers. */
export function ChangedText({ pieces }: { pieces: readonly Piece[] }) {
  const t = useStrings(reviewStrings);
  return (
    <>
      {pieces.map(({ kind, text }, i) => {
        const plain = <PlainText text={text} />;
        // biome-ignore-start lint/suspicious/noArrayIndexKey: pieces have no identity
        if (kind === "same") return <span key={i}>{plain}</span>;
        const Tag = kind === "added" ? "ins" : "del";
        return (
          <Tag key={i}>
            <span class="visually-hidden">[{kind === "added" ? t.added : t.removed}: </span>
            {plain}
            <span class="visually-hidden">]</span>
          </Tag>
        );
        // biome-ignore-end lint/suspicious/noArrayIndexKey: pieces have no identity
      })}
    </>
  );
}

const view = preference("review-view", oneOf("changes", "clean"));

export function ImageView({ pair }: { pair: Pair }) {
  const t = useStrings(reviewStrings);
  const url = useImage(pair.id);
  return (
    <figure class="review-image" aria-busy={url === undefined}>
      {typeof url === "string" && <img src={url} alt={showHidden(pair.name)} />}
      {url instanceof Error && (
        <p class="note" role="status">
          {t.noImage} {url.message}
        </p>
      )}
    </figure>
  );
}

export function PairHeader({ pair }: { pair: Pair }) {
  const t = useStrings(reviewStrings);
  const { name, persons, rules, agreement, standing } = pair;
  return (
    <header class="review-head">
      <div class="row">
        <h2 title={showHidden(name)}>{showHidden(name)}</h2>
        {standing !== "empty" && <span class={`standing ${standing}`}>{t[standing]}</span>}
      </div>
      {rules?.decision === "drop" && <Reasons verdict={rules} />}
      {persons.length > 0 && (
        <p class="note">
          {persons.map(({ id, author, decision }) => (
            <span key={id} class="verdict">
              {decision === "keep" ? t.verdict.keep(showHidden(author)) : t.verdict.drop(showHidden(author))}
            </span>
          ))}
          {agreement !== undefined && (
            <span class={agreement ? "verdict" : "verdict disagree"}>{agreement ? t.agree : t.disagree}</span>
          )}
        </p>
      )}
    </header>
  );
}

function Reasons({ verdict }: { verdict: Verdict }) {
  const t = useStrings(reviewStrings);
  return (
    <div class="reasons">
      <h3>{t.rules}</h3>
      <ul>
        {verdict.reasons.map(({ rule, message }) => (
          <li key={rule + message}>
            <b>{showHidden(rule)}</b> <PlainText text={message} />
          </li>
        ))}
      </ul>
    </div>
  );
}

export function TextView({ pair }: { pair: Pair }) {
  const t = useStrings(reviewStrings);
  const mode = useStore(view);
  const { versions } = pair;
  const current = versions.at(-1);
  const [selected, select] = useState<number>();
  // The choice belongs to one text of one pair.
  useEffect(() => select(undefined), [pair.id, current?.id]);
  const base = versions.find(({ id }) => id === selected) ?? comparisonBase(versions);
  const pieces = useMemo(() => diffWords(base?.text ?? current?.text ?? "", current?.text ?? ""), [base, current]);
  if (!current) return <p class="note">{t.noText}</p>;
  const changes = mode === "changes" && base !== undefined;
  const earlier = versions.slice(0, -1).reverse();
  return (
    <>
      {base && <ViewSwitch />}
      <p class="review-words" dir="auto">
        {changes ? <ChangedText pieces={pieces} /> : <PlainText text={current.text} />}
      </p>
      {changes && (
        <p class="note">
          {!hasChanges(pieces) && `${t.noChanges} `}
          {t.comparedWith} <VersionTitle version={base} />
        </p>
      )}
      {earlier.length > 0 && (
        <details class="review-history">
          <summary>{t.versions(earlier.length)}</summary>
          <ol>
            {earlier.map((version) => (
              <VersionItem
                key={version.id}
                version={version}
                compared={changes && version.id === base?.id}
                onCompare={() => {
                  select(version.id);
                  view.set("changes");
                }}
              />
            ))}
          </ol>
        </details>
      )}
    </>
  );
}

function ViewSwitch() {
  const t = useStrings(reviewStrings);
  const mode = useStore(view);
  return (
    <div class="switch views" role="radiogroup" aria-label={t.show}>
      {(["changes", "clean"] as const).map((choice) => (
        <label key={choice}>
          <input
            type="radio"
            name="review-view"
            class="visually-hidden"
            checked={choice === mode}
            onChange={() => view.set(choice)}
          />
          {t[choice]}
        </label>
      ))}
    </div>
  );
}

interface VersionProps {
  readonly version: Version;
  readonly compared: boolean;
  readonly onCompare: () => void;
}

function VersionItem({ version, compared, onCompare }: VersionProps) {
  const t = useStrings(reviewStrings);
  return (
    <li>
      <div class="row note">
        <VersionTitle version={version} />
        <button type="button" class="link" aria-pressed={compared} onClick={onCompare}>
          {compared ? t.comparing : t.compare}
        </button>
      </div>
      <p dir="auto">
        <PlainText text={version.text} />
      </p>
    </li>
  );
}

/** The kind, author and time of a version. */
function VersionTitle({ version: { kind, author, madeAt, details } }: { version: Version }) {
  const t = useStrings(reviewStrings);
  const time = new Date(madeAt).toLocaleString(useStore(language), { dateStyle: "medium", timeStyle: "short" });
  return (
    <span>
      {t.by(details.undoes === undefined ? t.kinds[kind] : t.putBack, showHidden(author))}, {time}
    </span>
  );
}
