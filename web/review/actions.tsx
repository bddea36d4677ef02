/** The buttons of a decision, in reach of a thumb; each shows its key. */
import { Icon, type IconName } from "../shell/icons.tsx";
import { useWords } from "../shell/language.ts";
import { type Keys, useKeys } from "./keys.ts";
import type { ReviewSession } from "./session.ts";
import { reviewWords } from "./words.ts";

export function Actions({ session, hasPair }: { session: ReviewSession; hasPair: boolean }) {
  const t = useWords(reviewWords);
  const keep = () => void session.decide("keep");
  const drop = () => void session.decide("drop");
  const edit = () => session.edit();
  const undo = () => session.undo();
  const previous = () => void session.previous();
  const next = () => void session.next();
  const pairKeys: Keys = hasPair ? { k: keep, d: drop, e: edit, arrowright: next } : {};
  useKeys({ ...pairKeys, u: undo, arrowleft: previous });
  return (
    <div class="review-actions" role="toolbar" aria-label={t.actions}>
      <Action class="previous" icon="back" name={t.previous} shortcut="←" onClick={previous} />
      <Action class="undo" icon="undo" name={t.undo} shortcut="U" onClick={undo} />
      <Action class="drop" icon="bin" name={t.drop} shortcut="D" onClick={drop} disabled={!hasPair} />
      <Action class="edit" icon="edit" name={t.edit} shortcut="E" onClick={edit} disabled={!hasPair} />
      <Action class="keep accent" icon="check" name={t.keep} shortcut="K" onClick={keep} disabled={!hasPair} />
      <Action class="next" icon="forth" name={t.next} shortcut="→" onClick={next} disabled={!hasPair} />
    </div>
  );
}

interface ActionProperties {
  readonly class: string;
  readonly icon: IconName;
  readonly name: string;
  readonly shortcut: string;
  readonly onClick: () => void;
  readonly disabled?: boolean;
}

function Action({ icon, name, shortcut, onClick, disabled, ...rest }: ActionProperties) {
  const keyName = { "←": "ArrowLeft", "→": "ArrowRight" }[shortcut] ?? shortcut;
  return (
    <button
      type="button"
      class={`button ${rest.class}`}
      aria-keyshortcuts={keyName}
      disabled={disabled}
      onClick={onClick}
    >
      <Icon name={icon} />
      <span>{name}</span>
      <span class="key" aria-hidden="true">
        {shortcut}
      </span>
    </button>
  );
}
