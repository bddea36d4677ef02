/** State management: observable values, and values that are saved in the browser. */
import { useLayoutEffect, useReducer } from "preact/hooks";

/** A value that notifies its listeners when it changes. */
export class Store<T> {
  #value: T;
  readonly #listeners = new Set<(value: T) => void>();

  constructor(value: T) {
    this.#value = value;
  }

  get value(): T {
    return this.#value;
  }

  set(value: T): void {
    if (Object.is(value, this.#value)) return;
    this.#value = value;
    for (const listener of [...this.#listeners]) listener(value);
  }

  update(change: (value: T) => T): void {
    this.set(change(this.#value));
  }

  /** Calls `listener` on every change. @returns a function that unsubscribes */
  subscribe(listener: (value: T) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }
}

/** Returns the value of a store and re-renders the component when it changes. */
export function useStore<T>(store: Store<T>): T {
  const [, rerender] = useReducer((count: number) => count + 1, 0);
  const rendered = store.value;
  // A layout effect: the next key press must already see the new state.
  useLayoutEffect(() => {
    // The store may have changed between render and effect.
    if (!Object.is(store.value, rendered)) rerender(undefined as never);
    return store.subscribe(() => rerender(undefined as never));
  }, [store]);
  return rendered;
}

const prefix = "minigpt4.";

/**
 * A store that is saved in the browser; where storage is forbidden or full, it lasts as long as the page.
 * @param parse turns the stored value, which may be anything or undefined, into a valid one
 * @param storage @default localStorage
 */
export function preference<T>(
  name: string,
  parse: (stored: unknown) => T,
  storage: () => Storage = () => localStorage,
): Store<T> {
  const store = new Store(parse(readStored(name, storage)));
  store.subscribe((value) => {
    try {
      if (value === undefined) storage().removeItem(prefix + name);
      else storage().setItem(prefix + name, JSON.stringify(value));
    } catch {
      // Storage is full or forbidden.
    }
  });
  return store;
}

/** A parser for preferences with a fixed set of values; the first is the default. */
export function oneOf<const T extends string>(...choices: readonly [T, ...T[]]): (stored: unknown) => T {
  return (stored) => choices.find((choice) => choice === stored) ?? choices[0];
}

function readStored(name: string, storage: () => Storage): unknown {
  try {
    const text = storage().getItem(prefix + name);
    return text === null ? undefined : JSON.parse(text);
  } catch {
    return undefined;
  }
}
