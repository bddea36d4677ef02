/** What screen readers are told without a change of focus. */
import { Store, useStore } from "./store.ts";

const said = new Store("");

/** Has a screen reader say `text` when it has finished what it is saying. */
export function announce(text: string): void {
  // The same text twice would be no change, and not be said again.
  said.set(said.value === text ? `${text}\u00a0` : text);
}

export function Announcer() {
  return (
    <div class="unseen" aria-live="polite">
      {useStore(said)}
    </div>
  );
}
