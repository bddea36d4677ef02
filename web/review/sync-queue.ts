/** Sends a reviewer's decisions to the server in order; saves them in the browser until they have arrived, and retries while offline. */
import { Store } from "../shell/store.ts";
import { type DecisionResponse, type Pair, ReviewError } from "./api.ts";

interface CommonFields {
  /** Negative, to stand for the version that an edit will create. */
  readonly id: number;
  readonly project: string;
  readonly reviewer: string;
}

interface VerdictItem extends CommonFields {
  readonly kind: "keep" | "drop";
  readonly image: number;
  readonly version: number;
  /** The text that was judged. */
  readonly text: string;
}

export interface EditItem extends CommonFields {
  readonly kind: "edit";
  readonly image: number;
  /** The version that was edited. */
  readonly version: number;
  readonly text: string;
}

interface UndoItem extends CommonFields {
  readonly kind: "undo";
  /** What to undo, if the page knows it. */
  readonly only?: { readonly image: number; readonly kind: "keep" | "drop" | "edit" };
}

export type Item = VerdictItem | EditItem | UndoItem;
export type NewItem = WithoutCommon<VerdictItem> | WithoutCommon<EditItem> | WithoutCommon<UndoItem>;
type WithoutCommon<T> = Omit<T, keyof CommonFields>;

/** A decision on a text that someone else has changed since. The reviewer has to resolve it. */
export interface Conflict {
  readonly item: VerdictItem | EditItem;
  /** The reviewer's verdict on their own edit, if any. */
  readonly verdict?: VerdictItem;
  /** All items that depend on this conflict. */
  readonly items: readonly Item[];
  readonly now: Pair;
}

export interface SyncState {
  /** The number of items that the server has not confirmed. */
  readonly pending: number;
  /** Why sending is paused, if it is. */
  readonly blockedBy?: "away" | "key";
}

export interface SyncEvents {
  sent(item: Item, answer: DecisionResponse): void;
  stale(conflict: Conflict): void;
  /** An edit could not be undone because someone has changed the text since. */
  undoStale(now: Pair | undefined): void;
  refused(item: Item, message: string): void;
}

type Post = (path: string, body: object) => Promise<DecisionResponse>;
/** The methods of the browser's `Storage` that are used. */
export type KeyValueStorage = Pick<Storage, "getItem" | "setItem" | "removeItem" | "key" | "length">;

export interface SyncQueueOptions {
  readonly post: Post;
  readonly events: SyncEvents;
  /** Where items are saved. @default nowhere */
  readonly storage?: KeyValueStorage;
  readonly retryDelayMs: number;
}

const prefix = "minigpt4.unsent.";

export class SyncQueue {
  readonly state = new Store<SyncState>({ pending: 0 });
  readonly #post: Post;
  readonly #events: SyncEvents;
  readonly #storage: KeyValueStorage | undefined;
  readonly #retryDelayMs: number;
  #project = "";
  #items: Item[] = [];
  #sending = false;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #lastId = 0;

  constructor({ post, events, storage, retryDelayMs }: SyncQueueOptions) {
    this.#post = post;
    this.#events = events;
    this.#storage = storage;
    this.#retryDelayMs = retryDelayMs;
  }

  /** Starts to send, including what an earlier page saved for this project. */
  open(project: string): void {
    if (this.#project !== project) {
      this.#project = project;
      this.#items = loadItems(this.#storage).filter((item) => item.project === project);
    }
    void this.send();
  }

  /** Stops sending; saved items are sent by the next page. */
  close(): void {
    clearTimeout(this.#timer);
    this.#items = [];
  }

  /** Ids of images with pending items. */
  get images(): number[] {
    return this.#items.flatMap((item) => (item.kind === "undo" ? [] : [item.image]));
  }

  add(item: NewItem, reviewer: string): Item {
    // From the clock, so that ids of several tabs and earlier pages differ.
    this.#lastId = Math.max(this.#lastId + 1, Date.now() * 1000 + Math.floor(Math.random() * 1000));
    const added = { ...item, id: -this.#lastId, project: this.#project, reviewer } as Item;
    this.#items.push(added);
    saveItem(this.#storage, added);
    void this.send();
    return added;
  }

  /** Deletes the saved items of a conflict that the reviewer has resolved. */
  discard({ items }: Pick<Conflict, "items">): void {
    for (const item of items) deleteItem(this.#storage, item);
  }

  /** Sends pending items, unless that is already in progress. */
  async send(): Promise<void> {
    clearTimeout(this.#timer);
    this.#updateState();
    if (this.#sending) return;
    this.#sending = true;
    let blockedBy: SyncState["blockedBy"];
    while (this.#items[0] && !blockedBy) blockedBy = await this.#sendOne(this.#items[0]);
    this.#sending = false;
    this.#updateState(blockedBy);
    if (blockedBy === "away") this.#timer = setTimeout(() => this.send(), this.#retryDelayMs);
  }

  async #sendOne(item: Item): Promise<SyncState["blockedBy"]> {
    try {
      const answer = await this.#post(...toRequest(item));
      this.#remove(item);
      if (item.kind === "edit") this.#replaceVersion(item, answer.pair?.versions.at(-1)?.id);
      this.#updateState();
      this.#events.sent(item, answer);
    } catch (error) {
      if (!(error instanceof ReviewError)) throw error;
      if (error.kind === "away" || error.kind === "key") return error.kind;
      this.#reject(item, error);
    }
    return undefined;
  }

  #reject(item: Item, { kind, message, current }: ReviewError): void {
    const items = [item, ...this.#dependents(item)];
    this.#items = this.#items.filter((other) => !items.includes(other));
    const stale = kind === "stale" && current;
    if (stale && item.kind !== "undo" && !items.some((other) => other.kind === "undo")) {
      const verdict = items.find((other): other is VerdictItem => other.kind === "keep" || other.kind === "drop");
      const lastEdit = items.findLast((other): other is EditItem => other.kind === "edit");
      const conflict = { item: lastEdit ?? item, verdict: lastEdit && verdict, items, now: current };
      this.#events.stale(conflict);
      return;
    }
    this.discard({ items });
    // If the reviewer has already undone it, there is nothing to resolve.
    if (stale) this.#events.undoStale(current);
    else this.#events.refused(item, message);
  }

  /** Items that build on the version that an item creates, and undos of it. */
  #dependents(item: Item): Item[] {
    if (item.kind === "undo") return [];
    const dependents: Item[] = [];
    const versions = new Set([item.id]);
    for (const other of this.#items) {
      if (other.kind === "undo" ? other.only?.image === item.image : versions.has(other.version))
        dependents.push(other);
      if (other.kind === "edit" && dependents.includes(other)) versions.add(other.id);
    }
    return dependents;
  }

  /** Makes items on an edited text refer to the version that the edit has created. */
  #replaceVersion({ id }: EditItem, version: number | undefined): void {
    if (version === undefined) return;
    this.#items = this.#items.map((other) => {
      if (other.kind === "undo" || other.version !== id) return other;
      const updated = { ...other, version };
      saveItem(this.#storage, updated);
      return updated;
    });
  }

  #remove(item: Item): void {
    this.#items = this.#items.filter(({ id }) => id !== item.id);
    deleteItem(this.#storage, item);
  }

  #updateState(blockedBy = this.#items.length > 0 ? this.state.value.blockedBy : undefined): void {
    this.state.set({ pending: this.#items.length, blockedBy });
  }
}

function toRequest(item: Item): [path: string, body: object] {
  const { reviewer } = item;
  if (item.kind === "undo") return ["/undo", { reviewer, only: item.only }];
  const { image, version, text } = item;
  if (item.kind === "edit") return [`/entries/${image}/text`, { reviewer, version, text }];
  return [`/entries/${image}/verdict`, { reviewer, version, decision: item.kind }];
}

function saveItem(storage: KeyValueStorage | undefined, item: Item): void {
  try {
    storage?.setItem(prefix + item.id, JSON.stringify(item));
  } catch {
    // Storage is full or forbidden: the item is sent, but does not outlast the page.
  }
}

function deleteItem(storage: KeyValueStorage | undefined, item: Item): void {
  try {
    storage?.removeItem(prefix + item.id);
  } catch {
    // It was never saved.
  }
}

/** The saved items, oldest first. */
function loadItems(storage: KeyValueStorage | undefined): Item[] {
  const items: Item[] = [];
  try {
    for (let i = 0; i < (storage?.length ?? 0); i++) {
      const name = storage?.key(i) ?? "";
      if (name.startsWith(prefix)) items.push(migrateItem(JSON.parse(storage?.getItem(name) ?? "")));
    }
  } catch {
    return [];
  }
  return items.sort((a, b) => b.id - a.id);
}

/** Earlier versions of the page saved an image's id as `picture`. */
function migrateItem(saved: Item & { picture?: number; only?: { picture?: number } }): Item {
  const { picture, ...item } = saved;
  if (picture !== undefined) return { ...item, image: picture } as Item;
  if (item.only?.picture === undefined) return item as Item;
  const { picture: image, ...only } = item.only;
  return { ...item, only: { ...only, image } } as Item;
}
