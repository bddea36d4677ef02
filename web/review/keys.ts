/** Keys of the review: single letters, which count for nothing while one writes or chooses. */
import { useLayoutEffect, useRef } from "preact/hooks";

/** What keys do, by `KeyboardEvent.key` in lower case. */
export type Keys = Readonly<Record<string, () => void>>;

export function useKeys(keys: Keys): void {
  const latest = useRef(keys);
  latest.current = keys;
  // As soon as the buttons are there.
  useLayoutEffect(() => {
    const onKeyDown = (event: KeyboardEvent) => {
      const { key, ctrlKey, altKey, metaKey, isComposing, repeat, target } = event;
      // A key that is held down must not decide on one pair after the other.
      if (ctrlKey || altKey || metaKey || isComposing || repeat) return;
      if (document.querySelector("dialog[open]") || takes(target, key)) return;
      const act = latest.current[key.toLowerCase()];
      if (!act) return;
      event.preventDefault();
      act();
    };
    addEventListener("keydown", onKeyDown);
    return () => removeEventListener("keydown", onKeyDown);
  }, []);
}

/** Whether the focused element has a use for the key itself: what is written in, and arrows in a choice. */
function takes(target: EventTarget | null, key: string): boolean {
  if (!(target instanceof Element)) return false;
  const choice = target.closest("input[type=radio]");
  return choice ? key.startsWith("Arrow") : target.closest("input, textarea, select, [contenteditable]") !== null;
}
