/** Keys of the review: single letters, which count for nothing while one writes or chooses. */
import { useEffect, useRef } from "preact/hooks";

/** What keys do, by `KeyboardEvent.key` in lower case. */
export type Keys = Readonly<Record<string, () => void>>;

export function useKeys(keys: Keys): void {
  const latest = useRef(keys);
  latest.current = keys;
  useEffect(() => {
    const onKeyDown = (event: KeyboardEvent) => {
      const { key, ctrlKey, altKey, metaKey, isComposing, repeat, target } = event;
      // A key that is held down must not decide on one pair after the other.
      if (ctrlKey || altKey || metaKey || isComposing || repeat) return;
      if (document.querySelector("dialog[open]") || isField(target)) return;
      const act = latest.current[key.toLowerCase()];
      if (!act) return;
      event.preventDefault();
      act();
    };
    addEventListener("keydown", onKeyDown);
    return () => removeEventListener("keydown", onKeyDown);
  }, []);
}

function isField(target: EventTarget | null): boolean {
  return target instanceof Element && target.closest("input, textarea, select, [contenteditable]") !== null;
}
