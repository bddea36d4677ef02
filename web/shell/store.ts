/** A value that tells its listeners when it changes: all the state management that the page needs. */
import { useLayoutEffect, useReducer } from "preact/hooks";

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

  /** Calls `listener` at every change; the returned function ends that. */
  subscribe(listener: (value: T) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }
}

/** The value of a store; the component is drawn anew when it changes. */
export function useStore<T>(store: Store<T>): T {
  const [, redraw] = useReducer((count: number) => count + 1, 0);
  const drawn = store.value;
  // Before anything else can happen: a key that follows at once finds what the one before it has changed.
  useLayoutEffect(() => {
    // What was drawn before it may have changed it.
    if (!Object.is(store.value, drawn)) redraw(undefined as never);
    return store.subscribe(() => redraw(undefined as never));
  }, [store]);
  return drawn;
}
