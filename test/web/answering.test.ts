/** Answers on their way into a chat. */
import { expect, test } from "vitest";
import { type AnswerRequest, type Backend, BackendError, type GenerationEvent } from "../../web/backend/backend.ts";
import { Answering, type Progress } from "../../web/chat/answering.ts";
import { ask, askAgain, newChat } from "../../web/chat/chat.ts";
import { Library } from "../../web/chat/library.ts";
import { MemoryChats } from "../../web/chat/storage.ts";

const how = { decoding: {} };
const text = (words: string): GenerationEvent => ({ kind: "text", text: words });
const end: GenerationEvent = { kind: "end", reason: "stop", tokens: 2 };

/** A library with one question, and what answers it: each entry is one try. */
async function asked(...tries: ((signal: AbortSignal) => AsyncIterable<GenerationEvent>)[]) {
  const requests: AnswerRequest[] = [];
  const backend: Backend = {
    info: async () => ({ name: "test" }),
    answer(request, signal) {
      requests.push(request);
      const next = tries.shift();
      if (!next) throw new Error("Nothing more was expected to be asked");
      return next(signal);
    },
  };
  const storage = new MemoryChats();
  const library = new Library(storage);
  const chat = ask(newChat(), "What is this?", [{ id: "p", name: "cat.jpg", width: 1, height: 1 }]);
  await library.put(chat, new Map([["p", new Blob(["cat"])]]));
  return { answering: new Answering(library, backend), library, storage, chat, requests };
}

async function* says(...events: GenerationEvent[]) {
  yield* events;
}

async function* fails(error: Error, ...events: GenerationEvent[]) {
  yield* events;
  throw error;
}

/** Says something, and then nothing until it is stopped. */
async function* hangs(signal: AbortSignal, ...events: GenerationEvent[]) {
  yield* events;
  await new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
}

test("texts become one answer, which is kept with its tokens", async () => {
  const { answering, storage, chat, requests } = await asked(() => says(text(" A"), text(" cat."), end));
  const answer = await answering.answer(chat.id, { decoding: { temperature: 1 }, system: "Be brief." });
  expect(answer).toMatchObject({ text: "A cat.", end: "stop", timing: { tokens: 2 } });
  expect((await storage.chat(chat.id))?.messages.at(-1)).toEqual(answer);
  expect(requests[0]).toMatchObject({ system: "Be brief.", decoding: { temperature: 1 } });
  expect(await requests[0]?.messages[0]?.images[0]?.text()).toBe("cat");
  expect(answering.progress.value.size).toBe(0);
});

test("a busy server is asked again when it says", async () => {
  const busy = () => fails(new BackendError("busy", "wait", 0.1));
  const { answering, chat, requests } = await asked(busy, busy, () => says(text("yes"), end));
  const seen: Progress["kind"][] = [];
  answering.progress.subscribe((all) => seen.push(all.get(chat.id)?.kind ?? "reading"));
  const started = performance.now();
  expect(await answering.answer(chat.id, how)).toMatchObject({ text: "yes", end: "stop" });
  expect(performance.now() - started).toBeGreaterThan(180);
  expect(requests).toHaveLength(3);
  expect(seen).toContain("waiting");
});

test("waiting can be stopped", async () => {
  const { answering, chat, requests } = await asked(() => fails(new BackendError("loading", "wait", 30)));
  const answer = answering.answer(chat.id, how);
  await new Promise((resolve) => setTimeout(resolve, 20));
  answering.stop(chat.id);
  expect(await answer).toMatchObject({ text: "", end: "stopped" });
  expect(requests).toHaveLength(1);
});

test("what came before an answer broke off stays, and it is not asked again by itself", async () => {
  const broken = new BackendError("broken", "the line is cut");
  const { answering, chat, requests } = await asked(() => fails(broken, text("A ca")));
  expect(await answering.answer(chat.id, how)).toMatchObject({
    text: "A ca",
    end: "problem",
    problem: { kind: "broken", message: "the line is cut" },
  });
  expect(requests).toHaveLength(1);
});

test("a stopped answer keeps what came", async () => {
  const { answering, chat } = await asked((signal) => hangs(signal, text("A"), text(" cat")));
  const answer = answering.answer(chat.id, how);
  await new Promise((resolve) => setTimeout(resolve, 20));
  answering.stop(chat.id);
  expect(await answer).toMatchObject({ text: "A cat", end: "stopped" });
});

test("asking again while an answer is written gives only the new one", async () => {
  const { answering, library, chat } = await asked(
    (signal) => hangs(signal, text("old")),
    () => says(text("new"), end),
  );
  const first = answering.answer(chat.id, how);
  await new Promise((resolve) => setTimeout(resolve, 20));
  await library.put(askAgain(chat));
  await answering.answer(chat.id, how);
  await first;
  expect(library.get(chat.id)?.messages.map((message) => message.text)).toEqual(["What is this?", "new"]);
  expect(library.get(chat.id)?.messages.at(-1)).toMatchObject({ end: "stop" });
});

test("an image that is lost becomes a problem of the answer", async () => {
  const { answering, library, chat } = await asked();
  await library.clear();
  await library.put(chat);
  expect(await answering.answer(chat.id, how)).toMatchObject({ end: "problem", problem: { kind: "failed" } });
});
