import { spawn } from "node:child_process";
import { join } from "node:path";
import fc from "fast-check";
import Database from "libsql";
import { describe, expect, test } from "vitest";
import { PolishError, polishingPrompt, polishStep, requestStep } from "../../../src/curation/polishing/plan.ts";
import { estimatePolish, polish } from "../../../src/curation/polishing/polish.ts";
import { ChatServer, polished, type Reply, said } from "../../helpers/chat-server.ts";
import { currentTexts, project, run, textOf } from "../../helpers/described-project.ts";
import { serve, tinyEngine, until } from "../../helpers/running-server.ts";

test("polishes each text once, and records its cost", async () => {
  const { store } = project(6);
  const server = await ChatServer.start(({ text }) => ({ ...said(polished(text)), after: 20 }));
  const steps: number[] = [];
  const report = await run(store, server, {
    prices: { input: 2, output: 10 },
    parallel: 2,
    onProgress: ({ done }) => steps.push(done),
  });
  expect(report).toMatchObject({
    ...{ model: "test", texts: 6, polished: 6, unchanged: 0, notTaken: 0, failed: 0, requests: 6 },
    ...{ promptTokens: 600, completionTokens: 60, projectTokens: 660, reasons: {} },
  });
  expect(report.cost).toBeCloseTo(0.0018);
  expect(report.stopped).toBeUndefined();
  expect(steps).toEqual([0, 1, 2, 3, 4, 5, 6]);
  for (const [i, { current, versions }] of store.entries().entries()) {
    expect(versions).toBe(2);
    expect(current).toMatchObject({
      kind: "polished",
      author: "test",
      prompt: polishingPrompt,
      text: polished(textOf(i)),
    });
    expect(current?.details).toMatchObject({ promptTokens: 100, completionTokens: 10, temperature: 0 });
    expect(current?.details.cost).toBeCloseTo(0.0003);
  }
  expect(server.most).toBe(2);
  // The oldest first, asked as the paper does.
  expect(server.asked.map(({ text }) => text)).toEqual([0, 1, 2, 3, 4, 5].map(textOf));
  expect(server.asked[0]?.body).toEqual({
    model: "test",
    messages: [{ role: "user", content: `${polishingPrompt}\n\n${textOf(0)}` }],
    max_tokens: 64,
    temperature: 0,
  });
  expect(await run(store, server)).toMatchObject({ texts: 0, requests: 0 });
});

test("polishes with minigpt4 serve and its only model", async () => {
  const server = await serve(await tinyEngine());
  const { store } = project(3);
  const report = await polish(store, { baseUrl: `${server.url}/v1`, maxTokens: 12, firstDelay: 1 });
  expect(report).toMatchObject({ model: "tiny", texts: 3 });
  // The tiny model babbles: its answers end at their length and are not taken, which is said.
  expect(report.polished + report.notTaken).toBe(3);
  expect(report.completionTokens).toBeGreaterThan(0);
  expect(store.failures(polishStep).size).toBe(report.notTaken);
});

describe("rejected answers", () => {
  test.each([
    ["empty", said("  \n ")],
    ["empty", said(null)],
    ["empty", { body: { choices: [] } }],
    ["cut off", said("A cat", { finish: "length" })],
    ["filtered", said("A cat", { finish: "content_filter" })],
    ["refusal", said(null, { message: { refusal: "No." } })],
    ["refusal", said("I'm sorry, but I can't assist with that.")],
    ["instruction", said("Fix the error in the given paragraph. A cat.")],
  ])("%s: tried three times, then left as it is", async (reason, reply) => {
    const { store } = project(2);
    const server = await ChatServer.start(({ text }) => (text === textOf(0) ? reply : said("A cat.")));
    expect(await run(store, server)).toMatchObject({ polished: 1, notTaken: 1, reasons: { [reason]: 3 }, requests: 4 });
    expect(currentTexts(store)).toEqual([textOf(0), "A cat."]);
    expect(store.failures(polishStep).get(1)?.times).toBe(3);
    // It stays so, until somebody wants otherwise.
    expect(await run(store, server)).toMatchObject({ texts: 0, givenUpBefore: 1, requests: 0 });
    expect(await run(store, server, { retryFailed: true })).toMatchObject({ texts: 1, requests: 3 });
  });

  test("are requested again, with twice the length if they were cut off", async () => {
    const { store } = project(1);
    const server = await ChatServer.start(({ times }) =>
      times < 3 ? said("A", { finish: "length" }) : said("A cat."),
    );
    expect(await run(store, server)).toMatchObject({ polished: 1, reasons: { "cut off": 2 }, promptTokens: 300 });
    expect(server.asked.map(({ body }) => body.max_tokens)).toEqual([64, 128, 256]);
  });

  test("a model that rejects parameters gets other ones", async () => {
    const refuse = (param: string, message: string): Reply => ({ status: 400, body: { error: { message, param } } });
    const { store } = project(9);
    const server = await ChatServer.start(({ text, body }) => {
      if ("max_tokens" in body)
        return refuse("max_tokens", "'max_tokens' is not supported; use 'max_completion_tokens'");
      if ("temperature" in body) return refuse("temperature", "Unsupported value: 'temperature' does not support 0");
      return said(polished(text));
    });
    expect(await run(store, server)).toMatchObject({ polished: 9, failed: 0 });
    expect(server.asked.at(-1)?.body).toMatchObject({ max_completion_tokens: 64 });
  });
});

describe("interrupted runs", () => {
  test("Ctrl-C keeps the answers, and the next run polishes the rest", async () => {
    const { store } = project(20);
    const interrupt = new AbortController();
    const server = await ChatServer.start(({ text, before }) => {
      if (before === 9) setTimeout(() => interrupt.abort(new Error("Interrupted")), 5);
      return { ...said(polished(text)), after: before < 9 ? 1 : 200 };
    });
    const report = await run(store, server, {}, interrupt.signal);
    expect(report.stopped).toBe("interrupted");
    expect(report.polished).toBeGreaterThanOrEqual(6);
    expect(report.polished).toBe(store.entries().filter(({ current }) => current?.kind === "polished").length);
    expect(await run(store, server)).toMatchObject({ polished: 20 - report.polished });
    expect(store.entries().every(({ versions }) => versions === 2)).toBe(true);
    // Nothing was begun that need not be.
    expect(server.asked.length).toBeLessThanOrEqual(20 + 4);
  });

  test("Ctrl-C ends waiting requests immediately", async () => {
    const server = await ChatServer.start(() => ({ status: 429, headers: { "retry-after": "60" } }));
    const began = performance.now();
    const report = await run(project(5).store, server, {}, AbortSignal.timeout(100));
    expect(report).toMatchObject({ stopped: "interrupted", polished: 0, failed: 0 });
    expect(performance.now() - began).toBeLessThan(3000);
  });

  test("a killed run loses no answer, and repeats only requests in flight", async () => {
    const texts = 40;
    const { store, path } = project(texts);
    const server = await ChatServer.start(({ text }) => ({ ...said(polished(text)), after: 10 }));
    const polisher = join(import.meta.dirname, "../../helpers/polisher.ts");
    const start = () => spawn(process.execPath, ["--import", "tsx", polisher, path, server.url], { stdio: "inherit" });
    let kills = 0;
    for (const stopAt of [4, 13, 27]) {
      const child = start();
      const ended = new Promise((resolve) => child.once("exit", resolve));
      await until(() => server.asked.length >= stopAt + 3 * kills, 20_000);
      child.kill("SIGKILL");
      await ended;
      kills++;
    }
    const last = start();
    expect(await new Promise((resolve) => last.once("exit", resolve))).toBe(0);
    expect(currentTexts(store)).toEqual(Array.from({ length: texts }, (_, i) => polished(textOf(i))));
    expect(store.entries().every(({ versions }) => versions === 2)).toBe(true);
    expect(server.asked.length).toBeLessThanOrEqual(texts + 3 * kills);
  });

  test("an edit during the run wins", async () => {
    const { store } = project(3);
    const server = await ChatServer.start(({ text }) => {
      if (text === textOf(0)) {
        const [first, second] = store.entries();
        for (const entry of [first, second]) {
          const { current } = entry ?? {};
          if (current)
            store.addVersion({
              image: current.image,
              parent: current.id,
              kind: "edited",
              text: "mine",
              author: "me",
            });
        }
      }
      return said(polished(text));
    });
    expect(await run(store, server, { parallel: 1 })).toMatchObject({ polished: 1, changedMeanwhile: 2, requests: 2 });
    expect(currentTexts(store)).toEqual(["mine", "mine", polished(textOf(2))]);
    expect(await run(store, server, { again: true })).toMatchObject({ polished: 1, requests: 1 });
    expect(currentTexts(store).slice(0, 2)).toEqual(["mine", "mine"]);
  });

  test("a project that cannot be written ends the run without further requests", async () => {
    const { store, path } = project(50);
    const server = await ChatServer.start(({ text, before }) => {
      if (before === 8)
        database.exec("CREATE TRIGGER full BEFORE INSERT ON versions BEGIN SELECT raise(ABORT, 'full'); END");
      return said(polished(text));
    });
    const database = new Database(path);
    await expect(run(store, server)).rejects.toThrow("full");
    database.close();
    expect(server.asked.length).toBeLessThan(8 + 9);
  });

  test("--again polishes in passes that can be interrupted", async () => {
    const { store } = project(6);
    let round = 1;
    const server = await ChatServer.start(({ text }) => said(`${text} ${round}`));
    await run(store, server);
    round = 2;
    await new Promise((resolve) => setTimeout(resolve, 5));
    expect(await run(store, server, { again: true, limit: 2 })).toMatchObject({ polished: 2 });
    round = 3;
    expect(await run(store, server, { again: true })).toMatchObject({ polished: 4 });
    // What was described is polished, not what was polished.
    expect(currentTexts(store)).toEqual([0, 1, 2, 3, 4, 5].map((i) => `${textOf(i)} ${i < 2 ? 2 : 3}`));
    round = 4;
    await new Promise((resolve) => setTimeout(resolve, 5));
    expect(await run(store, server, { again: true })).toMatchObject({ polished: 6 });
    expect(currentTexts(store).every((text) => text?.endsWith(" 4"))).toBe(true);
  });
});

describe("the budget", () => {
  test.each([1, 4])("ends a run before it is exceeded, also with %i at once", async (parallel) => {
    const { store } = project(30);
    const server = await ChatServer.start(({ text }) =>
      said(polished(text), { usage: { prompt_tokens: 300, completion_tokens: 50 } }),
    );
    const budget = 4000;
    const report = await run(store, server, { budget, parallel });
    expect(report.stopped).toBe("budget");
    expect(report.projectTokens).toBeLessThanOrEqual(budget);
    expect(report.projectTokens).toBeGreaterThan(budget - 800);
    // It is the project's: the next run has nothing left.
    expect(await run(store, server, { budget })).toMatchObject({ polished: 0, requests: 0, stopped: "budget" });
    expect(await run(store, server, { budget: 100_000 })).toMatchObject({ polished: 30 - report.polished });
  });

  test("includes rejected answers, and estimates missing token counts", async () => {
    const { store } = project(30);
    const server = await ChatServer.start(() => said("", { usage: { prompt_tokens: 300, completion_tokens: 50 } }));
    const report = await run(store, server, { budget: 3000 });
    expect(report).toMatchObject({ stopped: "budget", polished: 0 });
    expect(report.promptTokens + report.completionTokens).toBeLessThanOrEqual(3000);
    const silent = await ChatServer.start(({ text }) => said(polished(text), { usage: undefined }));
    expect((await run(store, silent, { limit: 1 })).promptTokens).toBeGreaterThan(50);
    expect(store.entries().findLast(({ versions }) => versions === 2)?.current?.details.estimated).toBe(true);
  });

  test("ends a run that lacks the tokens for a retry while another request is in flight", async () => {
    const { store } = project(2);
    const usage = { prompt_tokens: 100, completion_tokens: 10 };
    const server = await ChatServer.start(({ text }) =>
      text === textOf(0) ? said("", { usage }) : { ...said(polished(text), { usage }), after: 200 },
    );
    // Room for two questions at once, of which each may cost about 240 tokens.
    expect(await run(store, server, { budget: 520, parallel: 2 })).toMatchObject({
      ...{ texts: 2, polished: 1, notTaken: 0, requests: 2 },
      stopped: "budget",
    });
  });

  test("an estimate sends no requests", () => {
    const { store } = project(4);
    const estimate = estimatePolish(store, { prices: { input: 1, output: 2 }, limit: 3 });
    expect(estimate).toMatchObject({ texts: 3, givenUpBefore: 0, projectTokens: 0 });
    expect(estimate.promptTokens).toBeGreaterThan(3 * 70);
    expect(estimate.cost).toBeCloseTo((estimate.promptTokens + 2 * estimate.completionTokens) / 1e6);
  });
});

test("with random failures each text is polished at most once, or has a recorded reason", async () => {
  const kinds: Readonly<Record<string, Reply>> = {
    limit: { status: 429, headers: { "retry-after-ms": "2" } },
    busy: { status: 503 },
    cut: { cut: "at once" },
    half: { ...said("half"), cut: "halfway" },
    page: { body: "<html></html>" },
    slow: { ...said("late"), after: 150 },
    empty: said(""),
    length: said("A cat", { finish: "length" }),
    refused: { status: 400, body: { error: { message: "no" } } },
  };
  const schedule = fc.array(fc.constantFrom("good", "good", ...Object.keys(kinds)), { maxLength: 40 });
  await fc.assert(
    fc.asyncProperty(schedule, fc.integer({ min: 1, max: 6 }), async (plan, parallel) => {
      const { store } = project(8);
      const server = await ChatServer.start(
        ({ text, before }) => kinds[plan[before] ?? "good"] ?? said(polished(text)),
      );
      let stopped = false;
      await run(store, server, { parallel, retries: 2, timeout: 100 }).catch((error) => {
        if (!(error instanceof PolishError)) throw error;
        stopped = true;
      });
      const reasons = [store.failures(polishStep), store.failures(requestStep)];
      for (const { image, current, versions } of store.entries()) {
        const text = textOf(image.id - 1);
        if (current?.kind === "polished") expect([versions, current.text]).toEqual([2, polished(text)]);
        else expect(versions === 1 && (stopped || reasons.some((one) => one.has(image.id)))).toBe(true);
      }
      // Whatever is left is done as soon as the service is well.
      const well = await ChatServer.start();
      await run(store, well, { retryFailed: true });
      expect(store.entries().every(({ versions, current }) => versions === 2 && current?.kind === "polished")).toBe(
        true,
      );
    }),
    { numRuns: 15 },
  );
});
