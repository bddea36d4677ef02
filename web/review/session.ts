/** The review of one reviewer: the pair on screen, navigation, decisions, and conflicts with other reviewers. */
import type { VersionKind } from "../../src/curation/entry.ts";
import type { Progress, Selection } from "../../src/curation/review.ts";
import { Store } from "../shell/store.ts";
import { type DecisionResponse, type Pair, type ReviewApi, ReviewError } from "./api.ts";
import { Prefetcher } from "./prefetch.ts";
import { type Conflict, type EditItem, type Item, type KeyValueStorage, SyncQueue } from "./sync-queue.ts";

/** What is on screen. */
export type ReviewView =
  | { readonly kind: "loading" }
  /** `editing`: the text in the editor, if it is open. */
  | { readonly kind: "pair"; readonly pair: Pair; readonly editing?: string }
  /** The end of the selection. */
  | { readonly kind: "end" }
  | { readonly kind: "problem"; readonly problem: "away" | "key" | "refused"; readonly message: string };

/** What to tell the reviewer. */
export type Notice =
  | { readonly kind: "undone" | "nothing" | "overtaken" }
  | { readonly kind: "refused"; readonly message: string }
  | { readonly kind: "discarded"; readonly image: number; readonly text: string };

export class ReviewSession {
  readonly view = new Store<ReviewView>({ kind: "loading" });
  readonly progress = new Store<Progress | undefined>(undefined);
  readonly selection = new Store<Selection>({ filter: "unreviewed" });
  readonly conflicts = new Store<readonly Conflict[]>([]);
  readonly queue: SyncQueue;
  readonly prefetcher = new Prefetcher();
  notify: (notice: Notice) => void = () => {};
  readonly #api: ReviewApi;
  readonly #reviewer: string;
  readonly #retryDelayMs: number;
  /** Ids of the pairs that were on screen before. */
  #history: number[] = [];
  #decisions: { readonly image: number; readonly kind: "keep" | "drop" | "edit" }[] = [];
  /** Counts navigations, to ignore responses that arrive too late. */
  #navigation = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;

  /**
   * @param options.storage where unsent decisions are saved @default nowhere
   * @param options.retryDelayMs @default 3000
   */
  constructor(
    api: ReviewApi,
    reviewer: string,
    { storage, retryDelayMs = 3000 }: { readonly storage?: KeyValueStorage; readonly retryDelayMs?: number } = {},
  ) {
    this.#api = api;
    this.#retryDelayMs = retryDelayMs;
    this.#reviewer = reviewer;
    this.queue = new SyncQueue({
      post: (path, body) => api.post(path, body),
      events: {
        sent: (item, answer) => this.#sent(item, answer),
        stale: (conflict) => this.conflicts.update((all) => [...all, conflict]),
        undoStale: (now) => {
          this.notify({ kind: "overtaken" });
          if (now) this.#jumpTo(now);
        },
        refused: (_, message) => this.notify({ kind: "refused", message }),
      },
      storage,
      retryDelayMs,
    });
  }

  /** Starts, or retries after a problem. */
  async open(): Promise<void> {
    await this.#navigate(async () => {
      await this.refresh();
      return this.#next();
    });
  }

  close(): void {
    clearTimeout(this.#timer);
    this.#navigation++;
    this.queue.close();
  }

  /** Updates the progress, and the pair on screen if it has changed. */
  async refresh(): Promise<void> {
    const { project, progress } = await this.#api.state(this.#reviewer);
    this.progress.set(progress);
    this.queue.open(project);
    const { value } = this.view;
    // Another curation step may have added pairs.
    if (value.kind === "end" && this.#isQueue && progress.counts[this.selection.value.filter] > 0) {
      await this.#navigate(() => this.#next());
    }
    if (value.kind !== "pair" || value.editing !== undefined || this.queue.images.includes(value.pair.id)) return;
    const pair = await this.#api.pair(value.pair.id, this.#reviewer);
    if (this.view.value === value && JSON.stringify(pair) !== JSON.stringify(value.pair)) {
      this.view.set({ kind: "pair", pair });
    }
  }

  async select(selection: Selection): Promise<void> {
    this.selection.set(selection);
    this.prefetcher.clear();
    this.#history = [];
    await this.#navigate(() => this.#next());
  }

  /** Shows a pair. */
  async goTo(id: number): Promise<void> {
    this.#pushHistory();
    this.prefetcher.clear();
    await this.#navigate(() => this.#api.pair(id, this.#reviewer));
  }

  async next(): Promise<void> {
    const here = currentPair(this.view.value);
    // In a queue, the last remaining pair stays.
    await this.#advance(this.#isQueue ? here : undefined);
  }

  /** Shows the next pair. @param last the pair to show at the end of the selection */
  async #advance(last?: Pair): Promise<void> {
    const from = this.#pushHistory();
    const prefetched = this.prefetcher.take();
    if (prefetched) {
      this.#show(prefetched);
      return;
    }
    // Hide a decided pair while the next one loads, so that it cannot be decided twice.
    if (!last) this.#set({ kind: "loading" });
    await this.#navigate(
      () => this.#next(from),
      (pair) => pair ?? last,
    );
  }

  /** Shows the pair that was on screen before, else the previous one in the selection. */
  async previous(): Promise<void> {
    const here = currentPair(this.view.value);
    const id = this.#history.pop();
    await this.#navigate(
      () => (id === undefined ? this.#next(here?.id, true) : this.#api.pair(id, this.#reviewer)),
      (pair) => {
        if (here && pair) this.prefetcher.unshift(here);
        return pair ?? here;
      },
    );
  }

  /** Keeps or drops the pair on screen, and shows the next. */
  async decide(kind: "keep" | "drop"): Promise<void> {
    const pair = currentPair(this.view.value);
    const current = pair?.versions.at(-1);
    if (!pair || !current) return;
    this.queue.add({ kind, image: pair.id, version: current.id, text: current.text }, this.#reviewer);
    this.#decisions.push({ image: pair.id, kind });
    await this.#advance();
  }

  /** Opens the editor. @param draft @default the current text */
  edit(draft?: string): void {
    const { value } = this.view;
    if (value.kind === "pair") this.setDraft(draft ?? value.pair.versions.at(-1)?.text ?? "");
  }

  /** Sets the text in the editor. */
  setDraft(draft: string): void {
    const { value } = this.view;
    if (value.kind === "pair") this.view.set({ ...value, editing: draft });
  }

  cancelEdit(): void {
    const { value } = this.view;
    if (value.kind === "pair") this.#set({ kind: "pair", pair: value.pair });
  }

  /** Opens the editor with a discarded draft. */
  async restoreDraft(image: number, text: string): Promise<void> {
    if (currentPair(this.view.value)?.id !== image) await this.goTo(image);
    this.edit(text);
  }

  /** Saves the text in the editor as a new version, and stays on the pair. */
  save(): void {
    const { value } = this.view;
    if (value.kind !== "pair" || value.editing === undefined) return;
    const { pair, editing: text } = value;
    const current = pair.versions.at(-1);
    if (!current || text.trim() === "") return;
    if (text === current.text) {
      this.cancelEdit();
      return;
    }
    const item = this.queue.add({ kind: "edit", image: pair.id, version: current.id, text }, this.#reviewer);
    this.#decisions.push({ image: pair.id, kind: "edit" });
    this.view.set({ kind: "pair", pair: withEdit(pair, item as EditItem) });
  }

  undo(): void {
    const only = this.#decisions.pop();
    this.queue.add({ kind: "undo", only }, this.#reviewer);
  }

  /**
   * Resolves the first conflict.
   * @param choice "theirs": apply a verdict to the other text, or give up the edit; "mine": save the own text over the other, with its
   * verdict; "edit": open the editor with the own text; "look": show the pair
   */
  resolveConflict(choice: "theirs" | "mine" | "edit" | "look"): void {
    const [conflict] = this.conflicts.value;
    const current = conflict?.now.versions.at(-1);
    if (!conflict || !current) return;
    const { item, now } = conflict;
    const { image } = item;
    const verdict = item.kind === "edit" ? conflict.verdict?.kind : item.kind;
    if (choice === "theirs" && item.kind !== "edit") {
      this.queue.add({ kind: item.kind, image, version: current.id, text: current.text }, this.#reviewer);
    } else if (choice === "mine") {
      const edit = this.queue.add({ kind: "edit", image, version: current.id, text: item.text }, this.#reviewer);
      if (verdict) {
        this.queue.add({ kind: verdict, image, version: edit.id, text: item.text }, this.#reviewer);
      }
    }
    this.queue.discard(conflict);
    this.conflicts.update((all) => all.filter((other) => other !== conflict));
    if (choice === "mine" || (choice === "theirs" && item.kind !== "edit")) return;
    this.#jumpTo(now);
    if (choice === "edit") this.edit(item.text);
  }

  #sent(item: Item, { pair, progress }: DecisionResponse): void {
    this.progress.set(progress);
    if (item.kind === "undo") {
      this.notify({ kind: pair ? "undone" : "nothing" });
      // Stay here if the reviewer has already decided on that pair again.
      if (pair && !this.queue.images.includes(pair.id)) this.#jumpTo(pair);
      return;
    }
    const { value } = this.view;
    if (!pair || value.kind !== "pair" || value.pair.id !== pair.id) return;
    // The response does not contain later decisions.
    if (this.queue.images.includes(pair.id)) return;
    this.view.set({ ...value, pair });
  }

  /** Shows a pair; the one on screen comes next. */
  #jumpTo(pair: Pair): void {
    const here = currentPair(this.view.value);
    this.prefetcher.remove(pair);
    if (here && here.id !== pair.id) this.prefetcher.unshift(here);
    this.#history = this.#history.filter((id) => id !== pair.id);
    this.#show(pair);
  }

  /** Whether decided pairs leave the selection. */
  get #isQueue(): boolean {
    const { filter } = this.selection.value;
    return filter === "unreviewed" || filter === "ruled";
  }

  #pushHistory(): number | undefined {
    const here = currentPair(this.view.value);
    if (here) this.#history.push(here.id);
    return this.#history.at(-1);
  }

  #show(pair: Pair): void {
    this.#navigation++;
    clearTimeout(this.#timer);
    if (this.#history.at(-1) === pair.id) this.#history.pop();
    this.#set({ kind: "pair", pair });
    void this.prefetcher.fill(
      () => currentPair(this.view.value)?.id,
      (id) => this.#next(id),
    );
  }

  /** Changes the view, and reports an unsaved edit so that it can be restored. */
  #set(view: ReviewView): void {
    const image = currentPair(this.view.value)?.id;
    const text = unsavedText(this.view.value);
    this.view.set(view);
    if (image !== undefined && text !== undefined) this.notify({ kind: "discarded", image, text });
  }

  /** Fetches the pair after (or before) another, except those on screen, prefetched, or with pending decisions. */
  #next(from?: number, backwards = false): Promise<Pair | undefined> {
    const here = currentPair(this.view.value);
    const onScreen = here && from !== undefined ? [here.id] : [];
    const skip = [...onScreen, ...this.prefetcher.ids, ...this.queue.images];
    return this.#api.turn(this.selection.value, {
      reviewer: this.#reviewer,
      from,
      backwards: backwards || undefined,
      skip: [...new Set(skip)].slice(0, 100),
    });
  }

  /**
   * Shows a fetched pair, or the problem; while the server does not respond, it retries.
   * @param choose returns the pair to show, given the fetched one
   */
  async #navigate(
    fetchPair: () => Promise<Pair | undefined>,
    choose: (pair: Pair | undefined) => Pair | undefined = (pair) => pair,
  ): Promise<void> {
    const navigation = ++this.#navigation;
    clearTimeout(this.#timer);
    try {
      const fetched = await fetchPair();
      if (navigation !== this.#navigation) return;
      const pair = choose(fetched);
      if (pair) this.#show(pair);
      else this.#set({ kind: "end" });
    } catch (error) {
      if (navigation !== this.#navigation) return;
      if (!(error instanceof ReviewError)) throw error;
      const problem = error.kind === "stale" ? "refused" : error.kind;
      this.#set({ kind: "problem", problem, message: error.message });
      if (problem === "away") this.#timer = setTimeout(() => this.#navigate(fetchPair, choose), this.#retryDelayMs);
    }
  }
}

function currentPair(view: ReviewView): Pair | undefined {
  return view.kind === "pair" ? view.pair : undefined;
}

/** The text in the editor, if it has changed. */
function unsavedText(view: ReviewView): string | undefined {
  if (view.kind !== "pair" || view.editing === undefined) return undefined;
  return view.editing === view.pair.versions.at(-1)?.text ? undefined : view.editing;
}

/** The pair as it will be after an edit. */
function withEdit(pair: Pair, { id, version: parent, text, reviewer: author, image }: EditItem): Pair {
  const kind: VersionKind = "edited";
  return {
    ...pair,
    versions: [...pair.versions, { id, image, parent, kind, text, author, details: {}, madeAt: Date.now() }],
  };
}
