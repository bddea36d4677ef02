/** The review session against the real server: decisions, conflicts, and lost connections. */
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { CurationStore } from "../../src/curation/store.ts";
import { startReviewServer } from "../../src/server/serve.ts";
import { ReviewApi } from "../../web/review/api.ts";
import type { Notice } from "../../web/review/session.ts";
import { ReviewSession } from "../../web/review/session.ts";
import type { KeyValueStorage } from "../../web/review/sync-queue.ts";
import { reviewedProject } from "../helpers/reviewed.ts";
import { until } from "../helpers/running-server.ts";
import { temporaryFolder } from "../helpers/tiny-model.ts";

const folder = temporaryFolder();
let count = 0;

/** A project with these texts, its server, and a network that can fail. */
async function setUp(texts: readonly string[]) {
  const { store, path } = reviewedProject(join(folder, String(count++)), texts);
  const server = await startReviewServer({ port: 0, store });
  onTestFinished(() => server.close(0));
  const network = { up: true, dropResponses: false, dropped: 0 };
  const get: typeof fetch = async (...how) => {
    if (!network.up) throw new TypeError("no network");
    const response = await fetch(...how);
    if (network.dropResponses) {
      network.dropped++;
      throw new TypeError("no network");
    }
    return response;
  };
  const api = new ReviewApi({ base: `${server.url}/`, fetch: get });
  const review = (name: string, storage?: KeyValueStorage) => {
    const session = new ReviewSession(api, name, { storage, retryDelayMs: 50 });
    const notices: Notice["kind"][] = [];
    session.notify = ({ kind }) => notices.push(kind);
    onTestFinished(() => session.close());
    const shown = () => {
      const { value } = session.view;
      return value.kind === "pair" ? value.pair : undefined;
    };
    return {
      session,
      notices,
      shown,
      id: () => shown()?.id,
      text: () => shown()?.versions.at(-1)?.text,
      sent: () => until(() => session.queue.state.value.pending === 0),
    };
  };
  const standing = (id: number) => store.entry(id)?.persons.map(({ author, decision }) => `${author} ${decision}`);
  return { store, path, network, review, standing };
}

/** An in-memory `Storage`. */
function memoryStorage(): KeyValueStorage {
  const items = new Map<string, string>();
  return {
    get length() {
      return items.size;
    },
    key: (i) => [...items.keys()][i] ?? null,
    getItem: (name) => items.get(name) ?? null,
    setItem: (name, value) => void items.set(name, value),
    removeItem: (name) => void items.delete(name),
  };
}

/** Waits until two more responses have been dropped. */
async function retried(network: { readonly dropped: number }): Promise<void> {
  const before = network.dropped;
  await until(() => network.dropped >= before + 2);
}

function write(session: ReviewSession, text: string): void {
  session.edit();
  session.setDraft(text);
  session.save();
}

test("pairs are prefetched and reviewed one after the other; undo restores the last", async () => {
  const { review, standing } = await setUp(["A cat.", "A dog.", "A house."]);
  const { session, shown, id, sent, notices } = review("Ada");
  const soon: number[] = [];
  session.prefetcher.onFetched = (pair) => soon.push(pair.id);
  await session.open();
  expect(id()).toBe(1);
  await until(() => soon.length === 2);
  expect(soon).toEqual([2, 3]);
  await session.decide("keep");
  expect(id()).toBe(2);
  await session.decide("drop");
  await session.next();
  await sent();
  expect(id()).toBe(3);
  await session.decide("keep");
  expect(session.view.value.kind).toBe("end");
  await sent();
  expect([1, 2, 3].map(standing)).toEqual([["Ada keep"], ["Ada drop"], ["Ada keep"]]);
  expect(session.progress.value).toMatchObject({ reviewed: 3, all: 3 });
  session.undo();
  await until(() => id() === 3);
  expect(shown()?.standing).toBe("open");
  session.undo();
  await until(() => id() === 2);
  session.undo();
  await until(() => id() === 1);
  session.undo();
  await until(() => notices.includes("nothing"));
  expect([1, 2, 3].map(standing)).toEqual([[], [], []]);
});

test("pairs added by another curation step appear at the end of the review", async () => {
  const { review, store, path } = await setUp(["A cat.", "A dog."]);
  const { session, id, sent } = review("Ada");
  await session.open();
  // Deciding faster than pairs load decides nothing twice and nothing unseen.
  await Promise.all([session.decide("keep"), session.decide("keep"), session.decide("keep")]);
  expect(id()).toBe(2);
  expect(store.verdicts(2)).toHaveLength(0);
  await session.decide("keep");
  await sent();
  expect(store.verdicts(1)).toHaveLength(1);
  await session.refresh();
  expect(session.view.value.kind).toBe("end");
  const other = CurationStore.open(path);
  onTestFinished(() => other.close());
  other.addImages([{ name: "3.jpg", source: { path: "3.jpg" }, sha256: "3" }]);
  other.addVersion({ image: 3, kind: "described", text: "A house.", author: "nano" });
  await session.refresh();
  expect(id()).toBe(3);
});

test("previous and next, and another filter", async () => {
  const { review } = await setUp(["A cat.", "A dog in a garden.", "A house."]);
  const { session, id, notices } = review("Ada");
  await session.open();
  await session.next();
  await session.previous();
  expect(id()).toBe(1);
  await session.next();
  expect(id()).toBe(2);
  await session.select({ filter: "longest" });
  expect(id()).toBe(2);
  await session.next();
  expect(id()).toBe(3);
  session.edit();
  session.setDraft("Not saved.");
  await session.goTo(1);
  expect(notices).toEqual(["discarded"]);
  await session.previous();
  expect(id()).toBe(3);
  await session.select({ filter: "kept" });
  expect(session.view.value.kind).toBe("end");
});

test("decisions made offline are saved in the browser, and sent later in order", async () => {
  const { review, network, standing, store } = await setUp(["A cat.", "A dog.", "A house."]);
  const storage = memoryStorage();
  const first = review("Ada", storage);
  await first.session.open();
  const soon: number[] = [];
  first.session.prefetcher.onFetched = (pair) => soon.push(pair.id);
  await until(() => soon.length > 0 || first.session.prefetcher.ids.length > 1);
  network.up = false;
  write(first.session, "A grey cat.");
  expect(first.text()).toBe("A grey cat.");
  await first.session.decide("keep");
  expect(first.id()).toBe(2);
  await first.session.decide("drop");
  await until(() => first.session.queue.state.value.blockedBy === "away");
  expect(first.session.queue.state.value.pending).toBe(3);
  expect(storage.length).toBe(3);
  // The browser is closed and opened again.
  first.session.close();
  network.up = true;
  const second = review("Ada", storage);
  await second.session.open();
  await second.sent();
  expect(storage.length).toBe(0);
  expect(store.entry(1)?.current?.text).toBe("A grey cat.");
  expect([1, 2].map(standing)).toEqual([["Ada keep"], ["Ada drop"]]);
});

test("a lost response does not repeat a decision", async () => {
  const { review, network, standing, store } = await setUp(["A cat.", "A dog."]);
  const { session, sent } = review("Ada");
  await session.open();
  await until(() => session.prefetcher.ids.length === 1);
  network.dropResponses = true;
  write(session, "A grey cat.");
  await until(() => session.queue.state.value.blockedBy === "away");
  await session.decide("keep");
  await retried(network);
  network.dropResponses = false;
  await sent();
  expect(store.versions(1).map(({ text }) => text)).toEqual(["A cat. A cat.", "A cat.", "A grey cat."]);
  expect(store.verdicts(1)).toHaveLength(1);
  network.dropResponses = true;
  session.undo();
  await until(() => session.queue.state.value.blockedBy === "away");
  await retried(network);
  network.dropResponses = false;
  await sent();
  expect(standing(1)).toEqual([]);
  expect(store.entry(1)?.current?.text).toBe("A grey cat.");
});

test("undoing and deciding again before the response arrives does not jump back", async () => {
  const { review, standing } = await setUp(["A cat.", "A dog.", "A house."]);
  const { session, id, sent, notices } = review("Ada");
  await session.open();
  await session.decide("drop");
  await sent();
  await session.previous();
  expect(id()).toBe(1);
  session.undo();
  await session.decide("keep");
  await sent();
  expect(notices).toEqual(["undone"]);
  expect(standing(1)).toEqual(["Ada keep"]);
  expect(id()).toBe(2);
});

test("decisions for another project stay in the browser", async () => {
  const { review } = await setUp(["A cat."]);
  const storage = memoryStorage();
  const other = "minigpt4.unsent.-1";
  storage.setItem(other, JSON.stringify({ id: -1, project: "another", reviewer: "Ada", kind: "undo" }));
  const { session, sent, notices } = review("Ada", storage);
  await session.open();
  await session.decide("keep");
  await sent();
  expect(notices).toEqual([]);
  expect(storage.length).toBe(1);
  expect(storage.getItem(other)).not.toBeNull();
});

test("two reviewers get different pairs, and the second one resolves a conflict", async () => {
  const { review, store, standing } = await setUp(["A cat.", "A dog.", "A house.", "A tree.", "A car."]);
  const [ada, ben] = [review("Ada"), review("Ben")];
  await ada.session.open();
  await until(() => ada.session.prefetcher.ids.length === 2);
  await ben.session.open();
  expect(ben.id()).not.toBe(ada.id());
  await ben.session.goTo(1);
  write(ben.session, "A grey cat.");
  await ben.sent();
  // Ada still sees the old text.
  write(ada.session, "A cat in a box.");
  await ada.session.decide("keep");
  await until(() => ada.session.conflicts.value.length === 1);
  expect(ada.session.conflicts.value[0]).toMatchObject({
    item: { text: "A cat in a box." },
    verdict: { kind: "keep" },
  });
  expect(store.entry(1)?.current?.text).toBe("A grey cat.");
  ada.session.resolveConflict("mine");
  await ada.sent();
  expect(store.entry(1)?.current).toMatchObject({ text: "A cat in a box.", author: "Ada" });
  expect(standing(1)).toEqual(["Ada keep"]);
  expect(store.versions(1).map(({ text }) => text)).toContain("A grey cat.");

  // A verdict on an old text.
  const at = ada.id() ?? 0;
  await ben.session.goTo(at);
  write(ben.session, "Something else.");
  await ben.sent();
  await ada.session.decide("keep");
  await until(() => ada.session.conflicts.value.length === 1);
  expect(standing(at)).toEqual([]);
  ada.session.resolveConflict("theirs");
  await ada.sent();
  expect(standing(at)).toEqual(["Ada keep"]);
  expect(store.entry(at)?.current?.text).toBe("Something else.");
  ben.session.undo();
  await until(() => ben.notices.includes("undone"));
  expect(store.entry(at)?.current?.text).not.toBe("Something else.");
});

test("a conflict survives a reload, and its text can be edited", async () => {
  const { review, store } = await setUp(["A cat."]);
  const storage = memoryStorage();
  const first = review("Ada", storage);
  await first.session.open();
  const version = store.entry(1)?.current?.id ?? 0;
  store.addVersion({ image: 1, parent: version, kind: "edited", text: "A grey cat.", author: "Ben" });
  write(first.session, "A cat in a box.");
  await until(() => first.session.conflicts.value.length === 1);
  first.session.close();
  const second = review("Ada", storage);
  await second.session.open();
  await until(() => second.session.conflicts.value.length === 1);
  second.session.resolveConflict("edit");
  expect(second.session.view.value).toMatchObject({ editing: "A cat in a box.", pair: { id: 1 } });
  expect(second.text()).toBe("A grey cat.");
  write(second.session, "A grey cat in a box.");
  await second.sent();
  expect(store.entry(1)?.current?.text).toBe("A grey cat in a box.");
  expect(storage.length).toBe(0);
});

test("decisions saved by an earlier version of the page are sent", async () => {
  const { review, store, standing } = await setUp(["A cat.", "A dog."]);
  const storage = memoryStorage();
  const version = (id: number) => store.entry(id)?.current?.id ?? 0;
  const project = await new Promise<string>((resolve) => {
    const spy = memoryStorage();
    const setItem = spy.setItem;
    spy.setItem = (name, value) => {
      resolve(JSON.parse(value).project);
      setItem(name, value);
    };
    const { session } = review("Eve", spy);
    void session.open().then(() => session.undo());
  });
  const common = { project, reviewer: "Ada" };
  const saved = [
    { ...common, id: -1, kind: "keep", picture: 1, version: version(1), text: "A cat." },
    { ...common, id: -2, kind: "drop", picture: 2, version: version(2), text: "A dog." },
    { ...common, id: -3, kind: "undo", only: { picture: 2, kind: "drop" } },
  ];
  for (const item of saved) storage.setItem(`minigpt4.unsent.${item.id}`, JSON.stringify(item));
  const ada = review("Ada", storage);
  await ada.session.open();
  await ada.sent();
  expect([1, 2].map(standing)).toEqual([["Ada keep"], []]);
  expect(ada.notices).not.toContain("refused");
  expect(storage.length).toBe(0);
});
