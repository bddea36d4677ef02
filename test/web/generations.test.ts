/** Generations: streaming into a chat, retries, stopping, errors. */
import { expect, test } from "vitest";
import { type Backend, BackendError, type ChatRequest, type GenerationEvent } from "../../web/backend/backend.ts";
import { addQuestion, newChat, resetLastAnswer } from "../../web/chat/chat.ts";
import { Generations, type Progress } from "../../web/chat/generations.ts";
import { Library } from "../../web/chat/library.ts";
import { MemoryStorage } from "../../web/chat/storage.ts";
import { until } from "../helpers/running-server.ts";

const defaults = { options: {} };
const text = (words: string): GenerationEvent => ({ kind: "text", text: words });
const end: GenerationEvent = { kind: "end", reason: "stop", tokens: 2 };

/** A library with one question, and a backend that gives one response per attempt. */
async function setUp(...attempts: ((signal: AbortSignal) => AsyncIterable<GenerationEvent>)[]) {
  const requests: ChatRequest[] = [];
  const backend: Backend = {
    info: async () => ({ name: "test" }),
    generate(request, signal) {
      requests.push(request);
      const next = attempts.shift();
      if (!next) throw new Error("Unexpected request");
      return next(signal);
    },
  };
  const storage = new MemoryStorage();
  const library = new Library(storage);
  const chat = addQuestion(newChat(), "What is this?", [{ id: "p", name: "cat.jpg", width: 1, height: 1 }]);
  await library.put(chat, new Map([["p", new Blob(["cat"])]]));
  return { generations: new Generations(library, backend), library, storage, chat, requests };
}

async function* respond(...events: GenerationEvent[]) {
  yield* events;
}

async function* fail(error: Error, ...events: GenerationEvent[]) {
  yield* events;
  throw error;
}

/** Yields events, then waits until it is aborted. */
async function* hang(signal: AbortSignal, ...events: GenerationEvent[]) {
  yield* events;
  await new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
}

test("texts become one answer, which is saved with its token count", async () => {
  const { generations, storage, chat, requests } = await setUp(() => respond(text(" A"), text(" cat."), end));
  const answer = await generations.run(chat.id, { options: { temperature: 1 }, system: "Be brief." });
  expect(answer).toMatchObject({ text: "A cat.", end: "stop", timing: { tokens: 2 } });
  expect((await storage.chat(chat.id))?.messages.at(-1)).toEqual(answer);
  expect(requests[0]).toMatchObject({ system: "Be brief.", options: { temperature: 1 } });
  expect(await requests[0]?.messages[0]?.images[0]?.text()).toBe("cat");
  expect(generations.progress.value.size).toBe(0);
});

test("a busy server is retried after the time it asks for", async () => {
  const busy = () => fail(new BackendError("busy", "wait", 0.1));
  const { generations, chat, requests } = await setUp(busy, busy, () => respond(text("yes"), end));
  const seen: Progress["kind"][] = [];
  generations.progress.subscribe((all) => seen.push(all.get(chat.id)?.kind ?? "reading"));
  const started = performance.now();
  expect(await generations.run(chat.id, defaults)).toMatchObject({ text: "yes", end: "stop" });
  expect(performance.now() - started).toBeGreaterThan(180);
  expect(requests).toHaveLength(3);
  expect(seen).toContain("waiting");
});

test("waiting for a retry can be stopped", async () => {
  const { generations, chat, requests } = await setUp(() => fail(new BackendError("loading", "wait", 30)));
  const answer = generations.run(chat.id, defaults);
  await until(() => generations.progress.value.get(chat.id)?.kind === "waiting");
  generations.stop(chat.id);
  expect(await answer).toMatchObject({ text: "", end: "stopped" });
  expect(requests).toHaveLength(1);
});

test("an interrupted answer keeps its text and is not retried", async () => {
  const broken = new BackendError("broken", "the line is cut");
  const { generations, chat, requests } = await setUp(() => fail(broken, text("A ca")));
  expect(await generations.run(chat.id, defaults)).toMatchObject({
    text: "A ca",
    end: "problem",
    problem: { kind: "broken", message: "the line is cut" },
  });
  expect(requests).toHaveLength(1);
});

test("a stopped answer keeps its text", async () => {
  const { generations, library, chat } = await setUp((signal) => hang(signal, text("A"), text(" cat")));
  const answer = generations.run(chat.id, defaults);
  await until(() => library.get(chat.id)?.messages.at(-1)?.text === "A cat");
  generations.stop(chat.id);
  expect(await answer).toMatchObject({ text: "A cat", end: "stopped" });
});

test("regenerating while an answer is generated replaces it", async () => {
  const { generations, library, chat } = await setUp(
    (signal) => hang(signal, text("old")),
    () => respond(text("new"), end),
  );
  const first = generations.run(chat.id, defaults);
  await until(() => generations.progress.value.get(chat.id)?.kind === "writing");
  await library.put(resetLastAnswer(chat));
  await generations.run(chat.id, defaults);
  await first;
  expect(library.get(chat.id)?.messages.map((message) => message.text)).toEqual(["What is this?", "new"]);
  expect(library.get(chat.id)?.messages.at(-1)).toMatchObject({ end: "stop" });
});

test("a missing image becomes a problem of the answer", async () => {
  const { generations, library, chat } = await setUp();
  await library.clear();
  await library.put(chat);
  expect(await generations.run(chat.id, defaults)).toMatchObject({ end: "problem", problem: { kind: "failed" } });
});
