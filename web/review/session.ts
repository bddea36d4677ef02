/** A reviewer's way through the pairs: which is shown, what comes next, and what becomes of their decisions. */
import type { Progress, Selection } from "../../src/curation/review.ts";
import { Store } from "../shell/store.ts";
import { Ahead } from "./ahead.ts";
import { type DecisionResponse, type Pair, type ReviewApi, ReviewError } from "./api.ts";
import { type Conflict, type EditItem, type Item, type Kept, Outbox } from "./outbox.ts";
import { type Notice, pairOf, type Shown, unsavedOf, withEdit } from "./shown.ts";

export class ReviewSession {
  readonly shown = new Store<Shown>({ kind: "loading" });
  readonly progress = new Store<Progress | undefined>(undefined);
  readonly selection = new Store<Selection>({ filter: "unreviewed" });
  readonly conflicts = new Store<readonly Conflict[]>([]);
  readonly outbox: Outbox;
  readonly ahead = new Ahead();
  notify: (notice: Notice) => void = () => {};
  readonly #api: ReviewApi;
  readonly #reviewer: string;
  readonly #retryAfter: number;
  /** Ids of pairs that were shown before this one. */
  #before: number[] = [];
  #done: { readonly image: number; readonly kind: "keep" | "drop" | "edit" }[] = [];
  /** Counts what is shown, so that an answer that comes too late shows nothing. */
  #turn = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;

  /** @param options.kept where decisions outlast the page @param options.retryAfter milliseconds */
  constructor(
    api: ReviewApi,
    reviewer: string,
    { kept, retryAfter = 3000 }: { readonly kept?: Kept | undefined; readonly retryAfter?: number } = {},
  ) {
    this.#api = api;
    this.#retryAfter = retryAfter;
    this.#reviewer = reviewer;
    this.outbox = new Outbox(
      (path, body) => api.post(path, body),
      {
        sent: (item, answer) => this.#sent(item, answer),
        stale: (conflict) => this.conflicts.update((all) => [...all, conflict]),
        undoStale: (now) => {
          this.notify({ kind: "overtaken" });
          if (now) this.#showAnother(now);
        },
        refused: (_, message) => this.notify({ kind: "refused", message }),
      },
      kept,
      retryAfter,
    );
  }

  /** Begins, or goes on when a problem may be over. */
  async open(): Promise<void> {
    await this.#attempt(async () => {
      await this.refresh();
      return this.#next();
    });
  }

  close(): void {
    clearTimeout(this.#timer);
    this.#turn++;
    this.outbox.close();
  }

  /** Asks how far the review is, and whether the pair that is shown has changed. */
  async refresh(): Promise<void> {
    const { project, progress } = await this.#api.state(this.#reviewer);
    this.progress.set(progress);
    this.outbox.open(project);
    const { value } = this.shown;
    // Another step of the curation may have brought more.
    if (value.kind === "end" && this.#isQueue && progress.counts[this.selection.value.filter] > 0) {
      await this.#attempt(() => this.#next());
    }
    if (value.kind !== "pair" || value.editing !== undefined || this.outbox.images.includes(value.pair.id)) return;
    const pair = await this.#api.pair(value.pair.id, this.#reviewer);
    if (this.shown.value === value && JSON.stringify(pair) !== JSON.stringify(value.pair)) {
      this.shown.set({ kind: "pair", pair });
    }
  }

  async choose(selection: Selection): Promise<void> {
    this.selection.set(selection);
    this.ahead.clear();
    this.#before = [];
    await this.#attempt(() => this.#next());
  }

  /** Shows a pair of the list. */
  async go(id: number): Promise<void> {
    this.#leave();
    this.ahead.clear();
    await this.#attempt(() => this.#api.pair(id, this.#reviewer));
  }

  async next(): Promise<void> {
    const here = pairOf(this.shown.value);
    // The last one that is left stays.
    await this.#advance(this.#isQueue ? here : undefined);
  }

  /** @param last what is shown where nothing more is in the selection */
  async #advance(last?: Pair): Promise<void> {
    const from = this.#leave();
    const ready = this.ahead.take();
    if (ready) {
      this.#show(ready);
      return;
    }
    // What is decided must not be decided again while the next one comes.
    if (!last) this.#set({ kind: "loading" });
    await this.#attempt(
      () => this.#next(from),
      (pair) => pair ?? last,
    );
  }

  /** Back to the pair that was shown before, or that stands before this one in the selection. */
  async previous(): Promise<void> {
    const here = pairOf(this.shown.value);
    const id = this.#before.pop();
    await this.#attempt(
      () => (id === undefined ? this.#next(here?.id, true) : this.#api.pair(id, this.#reviewer)),
      (pair) => {
        if (here && pair) this.ahead.put(here);
        return pair ?? here;
      },
    );
  }

  /** Keeps or drops the pair that is shown, and goes on. */
  async decide(kind: "keep" | "drop"): Promise<void> {
    const pair = pairOf(this.shown.value);
    const current = pair?.versions.at(-1);
    if (!pair || !current) return;
    this.outbox.add({ kind, image: pair.id, version: current.id, text: current.text }, this.#reviewer);
    this.#done.push({ image: pair.id, kind });
    await this.#advance();
  }

  /** Opens the editor. @param draft what stands in it at first; the current text if left out */
  edit(draft?: string): void {
    const { value } = this.shown;
    if (value.kind === "pair") this.write(draft ?? value.pair.versions.at(-1)?.text ?? "");
  }

  /** Notes what stands in the editor now. */
  write(draft: string): void {
    const { value } = this.shown;
    if (value.kind === "pair") this.shown.set({ ...value, editing: draft });
  }

  leaveEdit(): void {
    const { value } = this.shown;
    if (value.kind === "pair") this.#set({ kind: "pair", pair: value.pair });
  }

  /** Opens the editor again with what was not wanted. */
  async bringBack(image: number, text: string): Promise<void> {
    if (pairOf(this.shown.value)?.id !== image) await this.go(image);
    this.edit(text);
  }

  /** Makes what stands in the editor the current text, and stays. */
  save(): void {
    const { value } = this.shown;
    if (value.kind !== "pair" || value.editing === undefined) return;
    const { pair, editing: text } = value;
    const current = pair.versions.at(-1);
    if (!current || text.trim() === "") return;
    if (text === current.text) {
      this.leaveEdit();
      return;
    }
    const item = this.outbox.add({ kind: "edit", image: pair.id, version: current.id, text }, this.#reviewer);
    this.#done.push({ image: pair.id, kind: "edit" });
    this.shown.set({ kind: "pair", pair: withEdit(pair, item as EditItem) });
  }

  undo(): void {
    const only = this.#done.pop();
    this.outbox.add({ kind: "undo", ...(only && { only }) }, this.#reviewer);
  }

  /**
   * Ends the first conflict.
   * @param how "theirs": a decision holds for the other's text, an edit is given up; "mine": the own text is put in the place of the
   * other's, with what was decided on it; "edit": the own text is in the editor; "look": the pair is shown
   */
  settle(how: "theirs" | "mine" | "edit" | "look"): void {
    const [conflict] = this.conflicts.value;
    const current = conflict?.now.versions.at(-1);
    if (!conflict || !current) return;
    const { item, now } = conflict;
    const { image } = item;
    const verdict = item.kind === "edit" ? conflict.verdict?.kind : item.kind;
    if (how === "theirs" && item.kind !== "edit") {
      this.outbox.add({ kind: item.kind, image, version: current.id, text: current.text }, this.#reviewer);
    } else if (how === "mine") {
      const edit = this.outbox.add({ kind: "edit", image, version: current.id, text: item.text }, this.#reviewer);
      if (verdict) {
        this.outbox.add({ kind: verdict, image, version: edit.id, text: item.text }, this.#reviewer);
      }
    }
    this.outbox.settle(conflict);
    this.conflicts.update((all) => all.filter((other) => other !== conflict));
    if (how === "mine" || (how === "theirs" && item.kind !== "edit")) return;
    this.#showAnother(now);
    if (how === "edit") this.edit(item.text);
  }

  #sent(item: Item, { pair, progress }: DecisionResponse): void {
    this.progress.set(progress);
    if (item.kind === "undo") {
      this.notify({ kind: pair ? "undone" : "nothing" });
      // Who has decided anew since has gone on.
      if (pair && !this.outbox.images.includes(pair.id)) this.#showAnother(pair);
      return;
    }
    const { value } = this.shown;
    if (!pair || value.kind !== "pair" || value.pair.id !== pair.id) return;
    // What was decided since is not in the answer yet.
    if (this.outbox.images.includes(pair.id)) return;
    this.shown.set({ ...value, pair });
  }

  /** Shows a pair now; the one that was shown comes next. */
  #showAnother(pair: Pair): void {
    const here = pairOf(this.shown.value);
    this.ahead.remove(pair);
    if (here && here.id !== pair.id) this.ahead.put(here);
    this.#before = this.#before.filter((id) => id !== pair.id);
    this.#show(pair);
  }

  /** Whether pairs leave the selection when they are decided. */
  get #isQueue(): boolean {
    const { filter } = this.selection.value;
    return filter === "unreviewed" || filter === "ruled";
  }

  #leave(): number | undefined {
    const here = pairOf(this.shown.value);
    if (here) this.#before.push(here.id);
    return this.#before.at(-1);
  }

  #show(pair: Pair): void {
    this.#turn++;
    clearTimeout(this.#timer);
    if (this.#before.at(-1) === pair.id) this.#before.pop();
    this.#set({ kind: "pair", pair });
    void this.ahead.fill(
      () => pairOf(this.shown.value)?.id,
      (id) => this.#next(id),
    );
  }

  /** Shows something else; what was written and not saved can be brought back. */
  #set(shown: Shown): void {
    const image = pairOf(this.shown.value)?.id;
    const text = unsavedOf(this.shown.value);
    this.shown.set(shown);
    if (image !== undefined && text !== undefined) this.notify({ kind: "discarded", image, text });
  }

  /** The pair after (or before) another, but for those that are shown, about to be shown, or decided. */
  #next(from?: number, backwards = false): Promise<Pair | undefined> {
    const here = pairOf(this.shown.value);
    const shown = here && from !== undefined ? [here.id] : [];
    const known = [...shown, ...this.ahead.ids, ...this.outbox.images];
    return this.#api.turn(this.selection.value, {
      reviewer: this.#reviewer,
      ...(from !== undefined && { from }),
      ...(backwards && { backwards }),
      skip: [...new Set(known)].slice(0, 100),
    });
  }

  /**
   * Shows what is fetched, or why that is not possible; while nobody answers it is tried again.
   * @param then is given the pair, and says which is shown
   */
  async #attempt(
    fetchPair: () => Promise<Pair | undefined>,
    then: (pair: Pair | undefined) => Pair | undefined = (pair) => pair,
  ): Promise<void> {
    const turn = ++this.#turn;
    clearTimeout(this.#timer);
    try {
      const fetched = await fetchPair();
      if (turn !== this.#turn) return;
      const pair = then(fetched);
      if (pair) this.#show(pair);
      else this.#set({ kind: "end" });
    } catch (cause) {
      if (turn !== this.#turn) return;
      if (!(cause instanceof ReviewError)) throw cause;
      const problem = cause.kind === "stale" ? "refused" : cause.kind;
      this.#set({ kind: "problem", problem, message: cause.message });
      if (problem === "away") this.#timer = setTimeout(() => this.#attempt(fetchPair, then), this.#retryAfter);
    }
  }
}
