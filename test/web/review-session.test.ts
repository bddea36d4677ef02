/** A reviewer's way through the pairs, against the real server: decisions, conflicts, and what happens while nobody answers. */
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { CurationStore } from "../../src/curation/store.ts";
import { startReviewServer } from "../../src/server/serve.ts";
import { ReviewApi } from "../../web/review/api.ts";
import type { Kept } from "../../web/review/outbox.ts";
import { ReviewSession } from "../../web/review/session.ts";
import type { Notice } from "../../web/review/shown.ts";
import { reviewedProject } from "../helpers/reviewed.ts";
import { until } from "../helpers/running-server.ts";
import { temporaryFolder } from "../helpers/tiny-model.ts";

const folder = temporaryFolder();
let count = 0;

/** A project of as many pairs, its server, and a network that can be cut. */
async function stage(texts: readonly string[]) {
  const { store, path } = reviewedProject(join(folder, String(count++)), texts);
  const server = await startReviewServer({ port: 0, store });
  onTestFinished(() => server.close(0));
  const network = { up: true, answersGetLost: false };
  const get: typeof fetch = async (...how) => {
    if (!network.up) throw new TypeError("no network");
    const response = await fetch(...how);
    if (network.answersGetLost) throw new TypeError("no network");
    return response;
  };
  const api = new ReviewApi({ base: `${server.url}/`, fetch: get });
  const review = (name: string, kept?: Kept) => {
    const session = new ReviewSession(api, name, { kept, retryAfter: 50 });
    const notices: Notice["kind"][] = [];
    session.notify = ({ kind }) => notices.push(kind);
    onTestFinished(() => session.close());
    const shown = () => {
      const { value } = session.shown;
      return value.kind === "pair" ? value.pair : undefined;
    };
    return {
      session,
      notices,
      shown,
      id: () => shown()?.id,
      text: () => shown()?.versions.at(-1)?.text,
      sent: () => until(() => session.outbox.state.value.unsent === 0),
    };
  };
  const standing = (id: number) => store.entry(id)?.persons.map(({ author, decision }) => `${author} ${decision}`);
  return { store, path, network, review, standing };
}

/** As the browser's storage is. */
function memory(): Kept {
  const kept = new Map<string, string>();
  return {
    get length() {
      return kept.size;
    },
    key: (i) => [...kept.keys()][i] ?? null,
    getItem: (name) => kept.get(name) ?? null,
    setItem: (name, value) => void kept.set(name, value),
    removeItem: (name) => void kept.delete(name),
  };
}

function write(session: ReviewSession, text: string): void {
  session.edit();
  session.write(text);
  session.save();
}

test("one pair after the other, fetched before it is wanted, until all are decided; undo brings the last back", async () => {
  const { review, standing } = await stage(["A cat.", "A dog.", "A house."]);
  const { session, shown, id, sent, notices } = review("Ada");
  const soon: number[] = [];
  session.ahead.soon = (pair) => soon.push(pair.id);
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
  expect(session.shown.value.kind).toBe("end");
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

test("what another step adds is seen where all was done", async () => {
  const { review, store, path } = await stage(["A cat.", "A dog."]);
  const { session, id, sent } = review("Ada");
  await session.open();
  // Who is faster than the next pair comes decides nothing twice, and nothing unseen.
  await Promise.all([session.decide("keep"), session.decide("keep"), session.decide("keep")]);
  expect(id()).toBe(2);
  expect(store.verdicts(2)).toHaveLength(0);
  await session.decide("keep");
  await sent();
  expect(store.verdicts(1)).toHaveLength(1);
  await session.refresh();
  expect(session.shown.value.kind).toBe("end");
  const other = CurationStore.open(path);
  onTestFinished(() => other.close());
  other.addImages([{ name: "3.jpg", source: { path: "3.jpg" }, sha256: "3" }]);
  other.addVersion({ image: 3, kind: "described", text: "A house.", author: "nano" });
  await session.refresh();
  expect(id()).toBe(3);
});

test("back and forth, and through another list", async () => {
  const { review } = await stage(["A cat.", "A dog in a garden.", "A house."]);
  const { session, id, notices } = review("Ada");
  await session.open();
  await session.next();
  await session.previous();
  expect(id()).toBe(1);
  await session.next();
  expect(id()).toBe(2);
  await session.choose({ filter: "longest" });
  expect(id()).toBe(2);
  await session.next();
  expect(id()).toBe(3);
  session.edit();
  session.write("Not saved.");
  await session.go(1);
  expect(notices).toEqual(["discarded"]);
  await session.previous();
  expect(id()).toBe(3);
  await session.choose({ filter: "kept" });
  expect(session.shown.value.kind).toBe("end");
});

test("what is decided while nobody answers is kept, also by the browser, and sent later in order", async () => {
  const { review, network, standing, store } = await stage(["A cat.", "A dog.", "A house."]);
  const kept = memory();
  const first = review("Ada", kept);
  await first.session.open();
  const soon: number[] = [];
  first.session.ahead.soon = (pair) => soon.push(pair.id);
  await until(() => soon.length > 0 || first.session.ahead.ids.length > 1);
  network.up = false;
  write(first.session, "A grey cat.");
  expect(first.text()).toBe("A grey cat.");
  await first.session.decide("keep");
  expect(first.id()).toBe(2);
  await first.session.decide("drop");
  await until(() => first.session.outbox.state.value.trouble === "away");
  expect(first.session.outbox.state.value.unsent).toBe(3);
  expect(kept.length).toBe(3);
  // The browser is closed and opened again.
  first.session.close();
  network.up = true;
  const second = review("Ada", kept);
  await second.session.open();
  await second.sent();
  expect(kept.length).toBe(0);
  expect(store.entry(1)?.current?.text).toBe("A grey cat.");
  expect([1, 2].map(standing)).toEqual([["Ada keep"], ["Ada drop"]]);
});

test("an answer that is lost makes nothing happen twice", async () => {
  const { review, network, standing, store } = await stage(["A cat.", "A dog."]);
  const { session, sent } = review("Ada");
  await session.open();
  await new Promise((resolve) => setTimeout(resolve, 100));
  network.answersGetLost = true;
  write(session, "A grey cat.");
  await until(() => session.outbox.state.value.trouble === "away");
  await session.decide("keep");
  await new Promise((resolve) => setTimeout(resolve, 200));
  network.answersGetLost = false;
  await sent();
  expect(store.versions(1).map(({ text }) => text)).toEqual(["A cat. A cat.", "A cat.", "A grey cat."]);
  expect(store.verdicts(1)).toHaveLength(1);
  network.answersGetLost = true;
  session.undo();
  await until(() => session.outbox.state.value.trouble === "away");
  await new Promise((resolve) => setTimeout(resolve, 200));
  network.answersGetLost = false;
  await sent();
  expect(standing(1)).toEqual([]);
  expect(store.entry(1)?.current?.text).toBe("A grey cat.");
});

test("who undoes and decides anew before the answer has come is not brought back", async () => {
  const { review, standing } = await stage(["A cat.", "A dog.", "A house."]);
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

test("decisions for another project stay in the browser until that one is back", async () => {
  const { review } = await stage(["A cat."]);
  const kept = memory();
  const other = "minigpt4.unsent.-1";
  kept.setItem(other, JSON.stringify({ id: -1, project: "another", reviewer: "Ada", kind: "undo" }));
  const { session, sent, notices } = review("Ada", kept);
  await session.open();
  await session.decide("keep");
  await sent();
  expect(notices).toEqual([]);
  expect(kept.length).toBe(1);
  expect(kept.getItem(other)).not.toBeNull();
});

test("two reviewers: different pairs, and who comes second chooses between the texts", async () => {
  const { review, store, standing } = await stage(["A cat.", "A dog.", "A house.", "A tree.", "A car."]);
  const [ada, ben] = [review("Ada"), review("Ben")];
  await ada.session.open();
  await new Promise((resolve) => setTimeout(resolve, 150));
  await ben.session.open();
  expect(ben.id()).not.toBe(ada.id());
  await ben.session.go(1);
  write(ben.session, "A grey cat.");
  await ben.sent();
  // Ada still sees the text of before.
  write(ada.session, "A cat in a box.");
  await ada.session.decide("keep");
  await until(() => ada.session.conflicts.value.length === 1);
  expect(ada.session.conflicts.value[0]).toMatchObject({
    item: { text: "A cat in a box." },
    verdict: { kind: "keep" },
  });
  expect(store.entry(1)?.current?.text).toBe("A grey cat.");
  ada.session.settle("mine");
  await ada.sent();
  expect(store.entry(1)?.current).toMatchObject({ text: "A cat in a box.", author: "Ada" });
  expect(standing(1)).toEqual(["Ada keep"]);
  expect(store.versions(1).map(({ text }) => text)).toContain("A grey cat.");

  // A decision on an old text.
  const at = ada.id() ?? 0;
  await ben.session.go(at);
  write(ben.session, "Something else.");
  await ben.sent();
  await ada.session.decide("keep");
  await until(() => ada.session.conflicts.value.length === 1);
  expect(standing(at)).toEqual([]);
  ada.session.settle("theirs");
  await ada.sent();
  expect(standing(at)).toEqual(["Ada keep"]);
  expect(store.entry(at)?.current?.text).toBe("Something else.");
  ben.session.undo();
  await until(() => ben.notices.includes("undone"));
  expect(store.entry(at)?.current?.text).not.toBe("Something else.");
});

test("a conflict survives a reload, and its text can be edited", async () => {
  const { review, store } = await stage(["A cat."]);
  const kept = memory();
  const first = review("Ada", kept);
  await first.session.open();
  const version = store.entry(1)?.current?.id ?? 0;
  store.addVersion({ image: 1, parent: version, kind: "edited", text: "A grey cat.", author: "Ben" });
  write(first.session, "A cat in a box.");
  await until(() => first.session.conflicts.value.length === 1);
  first.session.close();
  const second = review("Ada", kept);
  await second.session.open();
  await until(() => second.session.conflicts.value.length === 1);
  second.session.settle("edit");
  expect(second.session.shown.value).toMatchObject({ editing: "A cat in a box.", pair: { id: 1 } });
  expect(second.text()).toBe("A grey cat.");
  write(second.session, "A grey cat in a box.");
  await second.sent();
  expect(store.entry(1)?.current?.text).toBe("A grey cat in a box.");
  expect(kept.length).toBe(0);
});
