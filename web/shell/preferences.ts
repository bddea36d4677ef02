/** What the browser remembers of a user's choices; where it forbids that, they last as long as the page. */
import { Store } from "./store.ts";

const prefix = "minigpt4.";

/**
 * A store that is kept in the browser under `name`.
 * @param read makes a valid value of what was kept, which may be anything (undefined if there is nothing)
 */
export function preference<T>(
  name: string,
  read: (kept: unknown) => T,
  area: () => Storage = () => localStorage,
): Store<T> {
  const store = new Store(read(keptValue(name, area)));
  store.subscribe((value) => {
    try {
      if (value === undefined) area().removeItem(prefix + name);
      else area().setItem(prefix + name, JSON.stringify(value));
    } catch {
      // Storage is full or forbidden: the choice holds until the page is closed.
    }
  });
  return store;
}

function keptValue(name: string, area: () => Storage): unknown {
  try {
    const text = area().getItem(prefix + name);
    return text === null ? undefined : JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** A reader of preferences that are one of a few words; the first is the default. */
export function oneOf<const T extends string>(...choices: readonly [T, ...T[]]): (kept: unknown) => T {
  return (kept) => choices.find((choice) => choice === kept) ?? choices[0];
}
