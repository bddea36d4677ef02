/** An image, and beside it its text: what became of it, what was changed, and what was there before. */
import { useEffect, useMemo, useState } from "preact/hooks";
import type { Verdict, Version } from "../../src/curation/entry.ts";
import { language, useWords } from "../shell/language.ts";
import { oneOf, preference } from "../shell/preferences.ts";
import { useStore } from "../shell/store.ts";
import type { Pair } from "./api.ts";
import { baseOf } from "./base.ts";
import { changesBetween, hasChanges } from "./changes.ts";
import { ChangedText, PlainText } from "./text-view.tsx";
import { useImage } from "./use-session.ts";
import { visible } from "./visible.ts";
import { reviewWords } from "./words.ts";

const view = preference("review-view", oneOf("changes", "clean"));

export function ImageView({ pair }: { pair: Pair }) {
  const t = useWords(reviewWords);
  const url = useImage(pair.id);
  return (
    <figure class="review-image" aria-busy={url === undefined}>
      {typeof url === "string" && <img src={url} alt={visible(pair.name)} />}
      {url instanceof Error && (
        <p class="note" role="status">
          {t.noImage} {url.message}
        </p>
      )}
    </figure>
  );
}

export function PairHead({ pair }: { pair: Pair }) {
  const t = useWords(reviewWords);
  const { name, persons, rules, agreement, standing } = pair;
  return (
    <header class="review-head">
      <div class="row">
        <h2 title={visible(name)}>{visible(name)}</h2>
        {standing !== "empty" && <span class={`standing ${standing}`}>{t[standing]}</span>}
      </div>
      {rules?.decision === "drop" && <Reasons verdict={rules} />}
      {persons.length > 0 && (
        <p class="note">
          {persons.map(({ id, author, decision }) => (
            <span key={id} class="said">
              {decision === "keep" ? t.said.keep(visible(author)) : t.said.drop(visible(author))}
            </span>
          ))}
          {agreement !== undefined && (
            <span class={agreement ? "said" : "said apart"}>{agreement ? t.agree : t.disagree}</span>
          )}
        </p>
      )}
    </header>
  );
}

function Reasons({ verdict }: { verdict: Verdict }) {
  const t = useWords(reviewWords);
  return (
    <div class="reasons">
      <h3>{t.rules}</h3>
      <ul>
        {verdict.reasons.map(({ rule, message }) => (
          <li key={rule + message}>
            <b>{visible(rule)}</b> <PlainText text={message} />
          </li>
        ))}
      </ul>
    </div>
  );
}

export function TextView({ pair }: { pair: Pair }) {
  const t = useWords(reviewWords);
  const mode = useStore(view);
  const { versions } = pair;
  const current = versions.at(-1);
  const [chosen, choose] = useState<number>();
  // Of another pair, or of another text, what was chosen says nothing.
  useEffect(() => choose(undefined), [pair.id, current?.id]);
  const base = versions.find(({ id }) => id === chosen) ?? baseOf(versions);
  const pieces = useMemo(() => changesBetween(base?.text ?? current?.text ?? "", current?.text ?? ""), [base, current]);
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
                  choose(version.id);
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
  const t = useWords(reviewWords);
  const mode = useStore(view);
  return (
    <div class="switch views" role="radiogroup" aria-label={t.show}>
      {(["changes", "clean"] as const).map((choice) => (
        <label key={choice}>
          <input
            type="radio"
            name="review-view"
            class="unseen"
            checked={choice === mode}
            onChange={() => view.set(choice)}
          />
          {t[choice]}
        </label>
      ))}
    </div>
  );
}

interface VersionProperties {
  readonly version: Version;
  readonly compared: boolean;
  readonly onCompare: () => void;
}

function VersionItem({ version, compared, onCompare }: VersionProperties) {
  const t = useWords(reviewWords);
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

/** Who made a version of the text how and when. */
function VersionTitle({ version: { kind, author, madeAt, details } }: { version: Version }) {
  const t = useWords(reviewWords);
  const time = new Date(madeAt).toLocaleString(useStore(language), { dateStyle: "medium", timeStyle: "short" });
  return (
    <span>
      {t.by(details.undoes === undefined ? t.kinds[kind] : t.putBack, visible(author))}, {time}
    </span>
  );
}
