/**
 * What a reviewer decided, on its way to the server: sent in order, kept in the browser until it has arrived, and sent again while
 * nobody answers.
 */
import { Store } from "../shell/store.ts";
import { type DecisionResponse, type Pair, ReviewError } from "./api.ts";

interface Common {
  /** Negative, so that it can stand for the version that an edit will make. */
  readonly id: number;
  readonly project: string;
  readonly reviewer: string;
}

interface VerdictItem extends Common {
  readonly kind: "keep" | "drop";
  readonly image: number;
  readonly version: number;
  /** The text that was judged. */
  readonly text: string;
}

export interface EditItem extends Common {
  readonly kind: "edit";
  readonly image: number;
  /** The version that was changed. */
  readonly version: number;
  readonly text: string;
}

interface UndoItem extends Common {
  readonly kind: "undo";
  /** What is to be undone, if the page knows. */
  readonly only?: { readonly image: number; readonly kind: "keep" | "drop" | "edit" };
}

export type Item = VerdictItem | EditItem | UndoItem;
export type NewItem = WithoutCommon<VerdictItem> | WithoutCommon<EditItem> | WithoutCommon<UndoItem>;
type WithoutCommon<T> = Omit<T, keyof Common>;

/** A decision on a text that somebody has changed meanwhile. It waits for the reviewer. */
export interface Conflict {
  readonly item: VerdictItem | EditItem;
  /** What the reviewer decided on their edited text. */
  readonly verdict?: VerdictItem;
  /** All that waits for how this is settled. */
  readonly items: readonly Item[];
  readonly now: Pair;
}

export interface OutboxState {
  /** How many are not with the server yet. */
  readonly unsent: number;
  /** Why not, if not merely because they are on their way. */
  readonly trouble?: "away" | "key";
}

export interface OutboxEvents {
  sent(item: Item, answer: DecisionResponse): void;
  stale(conflict: Conflict): void;
  /** An undo of an edit that somebody went on with. */
  undoStale(now: Pair | undefined): void;
  refused(item: Item, message: string): void;
}

type Post = (path: string, body: object) => Promise<DecisionResponse>;
/** The part of the browser's `Storage` that is used. */
export type Kept = Pick<Storage, "getItem" | "setItem" | "removeItem" | "key" | "length">;

const prefix = "minigpt4.unsent.";

export class Outbox {
  readonly state = new Store<OutboxState>({ unsent: 0 });
  readonly #post: Post;
  readonly #events: OutboxEvents;
  readonly #kept: Kept | undefined;
  readonly #retryAfter: number;
  #project = "";
  #items: Item[] = [];
  #sending = false;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #lastId = 0;

  constructor(post: Post, events: OutboxEvents, kept: Kept | undefined, retryAfter: number) {
    this.#post = post;
    this.#events = events;
    this.#kept = kept;
    this.#retryAfter = retryAfter;
  }

  /** Sends what there is, also what an earlier page kept for this project. */
  open(project: string): void {
    if (this.#project !== project) {
      this.#project = project;
      this.#items = readKept(this.#kept).filter((item) => item.project === project);
    }
    void this.send();
  }

  /** Sends no more; what is left goes with the next page. */
  close(): void {
    clearTimeout(this.#timer);
    this.#items = [];
  }

  /** Images about which something is under way. */
  get images(): number[] {
    return this.#items.flatMap((item) => (item.kind === "undo" ? [] : [item.image]));
  }

  add(item: NewItem, reviewer: string): Item {
    // Of the time, so that those of several tabs and earlier pages are others.
    this.#lastId = Math.max(this.#lastId + 1, Date.now() * 1000 + Math.floor(Math.random() * 1000));
    const added = { ...item, id: -this.#lastId, project: this.#project, reviewer } as Item;
    this.#items.push(added);
    keep(this.#kept, added);
    void this.send();
    return added;
  }

  /** Forgets a conflict that the reviewer has settled; until then the browser keeps it. */
  settle({ items }: Pick<Conflict, "items">): void {
    for (const item of items) forget(this.#kept, item);
  }

  /** Sends what there is, if that is not under way already. */
  async send(): Promise<void> {
    clearTimeout(this.#timer);
    this.#tell();
    if (this.#sending) return;
    this.#sending = true;
    let trouble: OutboxState["trouble"];
    while (this.#items[0] && !trouble) trouble = await this.#sendOne(this.#items[0]);
    this.#sending = false;
    this.#tell(trouble);
    if (trouble === "away") this.#timer = setTimeout(() => this.send(), this.#retryAfter);
  }

  async #sendOne(item: Item): Promise<OutboxState["trouble"]> {
    try {
      const answer = await this.#post(...requestOf(item));
      this.#remove(item);
      if (item.kind === "edit") this.#madeVersion(item, answer.pair?.versions.at(-1)?.id);
      this.#tell();
      this.#events.sent(item, answer);
    } catch (cause) {
      if (!(cause instanceof ReviewError)) throw cause;
      if (cause.kind === "away" || cause.kind === "key") return cause.kind;
      this.#failed(item, cause);
    }
    return undefined;
  }

  #failed(item: Item, { kind, message, current }: ReviewError): void {
    const items = [item, ...this.#buildingOn(item)];
    this.#items = this.#items.filter((other) => !items.includes(other));
    const stale = kind === "stale" && current;
    if (stale && item.kind !== "undo" && !items.some((other) => other.kind === "undo")) {
      const verdict = items.find((other): other is VerdictItem => other.kind === "keep" || other.kind === "drop");
      const latest = items.findLast((other): other is EditItem => other.kind === "edit");
      this.#events.stale({ item: latest ?? item, ...(latest && verdict && { verdict }), items, now: current });
      return;
    }
    this.settle({ items });
    // Who has taken it back already has nothing to decide.
    if (stale) this.#events.undoStale(current);
    else this.#events.refused(item, message);
  }

  /** What was decided on the text that an edit makes, and whether it was taken back again. */
  #buildingOn(item: Item): Item[] {
    if (item.kind === "undo") return [];
    const found: Item[] = [];
    const versions = new Set([item.id]);
    for (const other of this.#items) {
      if (other.kind === "undo" ? other.only?.image === item.image : versions.has(other.version)) found.push(other);
      if (other.kind === "edit" && found.includes(other)) versions.add(other.id);
    }
    return found;
  }

  /** What was decided on an edited text now names the version that the edit has become. */
  #madeVersion({ id }: EditItem, version: number | undefined): void {
    if (version === undefined) return;
    this.#items = this.#items.map((other) => {
      if (other.kind === "undo" || other.version !== id) return other;
      const known = { ...other, version };
      keep(this.#kept, known);
      return known;
    });
  }

  #remove(item: Item): void {
    this.#items = this.#items.filter(({ id }) => id !== item.id);
    forget(this.#kept, item);
  }

  #tell(trouble = this.#items.length > 0 ? this.state.value.trouble : undefined): void {
    this.state.set({ unsent: this.#items.length, ...(trouble && { trouble }) });
  }
}

function requestOf(item: Item): [path: string, body: object] {
  const { reviewer } = item;
  if (item.kind === "undo") return ["/undo", { reviewer, only: item.only }];
  const { image, version, text } = item;
  if (item.kind === "edit") return [`/entries/${image}/text`, { reviewer, version, text }];
  return [`/entries/${image}/verdict`, { reviewer, version, decision: item.kind }];
}

function keep(kept: Kept | undefined, item: Item): void {
  try {
    kept?.setItem(prefix + item.id, JSON.stringify(item));
  } catch {
    // Storage is full or forbidden: it is sent all the same, but does not outlast the page.
  }
}

function forget(kept: Kept | undefined, item: Item): void {
  try {
    kept?.removeItem(prefix + item.id);
  } catch {
    // It was never kept.
  }
}

/** In the order in which they were decided. */
function readKept(kept: Kept | undefined): Item[] {
  const items: Item[] = [];
  try {
    for (let i = 0; i < (kept?.length ?? 0); i++) {
      const name = kept?.key(i) ?? "";
      if (name.startsWith(prefix)) items.push(JSON.parse(kept?.getItem(name) ?? "") as Item);
    }
  } catch {
    return [];
  }
  return items.sort((a, b) => b.id - a.id);
}
