/** The curves of a run reach the page while it is still going on, and nothing else of the disk does. */
import { appendFileSync, mkdirSync, rmSync, symlinkSync, truncateSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { serve } from "@hono/node-server";
import { type EventSourceMessage, EventSourceParserStream } from "eventsource-parser/stream";
import { Hono } from "hono";
import { HTTPException } from "hono/http-exception";
import { afterAll, describe, expect, test } from "vitest";
import { runsApi } from "../../../src/server/runs/runs.ts";
import { type Metric, MetricsLog } from "../../../src/training/metrics/metrics.ts";
import { temporaryFolder } from "../../helpers/tiny-model.ts";

const folder = join(temporaryFolder(), "runs");
mkdirSync(folder);
writeFileSync(join(folder, "..", "metrics.jsonl"), `${JSON.stringify(train(1))}\n`);

const app = new Hono().route("/runs", runsApi(folder));
app.onError((error, context) =>
  error instanceof HTTPException ? error.getResponse() : context.text(String(error), 500),
);
const server = serve({ fetch: app.fetch, port: 0, hostname: "127.0.0.1" });
afterAll(() => {
  if ("closeAllConnections" in server) server.closeAllConnections();
  server.close();
});
const origin = await new Promise<string>((resolve) => {
  server.on("listening", () => {
    const address = server.address();
    if (address && typeof address === "object") resolve(`http://127.0.0.1:${address.port}`);
  });
});

function train(step: number, loss = 1 / step): Metric {
  return { kind: "train", step, time: 1_700_000_000 + step, loss, learning_rate: 1e-4 };
}

async function runWith(name: string, steps: number, stage?: string): Promise<MetricsLog> {
  const log = await MetricsLog.open(join(folder, name), { stage });
  for (let step = 1; step <= steps; step++) await log.write(train(step));
  return log;
}

interface Listener {
  next(): Promise<EventSourceMessage>;
  /** Whether nothing comes for a while. */
  isQuiet(milliseconds: number): Promise<boolean>;
  leave(): void;
}

async function listen(path: string, lastEventId?: string): Promise<Listener> {
  const leaving = new AbortController();
  const response = await fetch(`${origin}/runs/${path}`, {
    headers: { accept: "text/event-stream", ...(lastEventId !== undefined && { "last-event-id": lastEventId }) },
    signal: leaving.signal,
  });
  expect(response.headers.get("content-type")).toMatch(/^text\/event-stream/);
  const events = response.body?.pipeThrough(new TextDecoderStream()).pipeThrough(new EventSourceParserStream());
  if (!events) throw new Error("There is no body");
  const reader = events.getReader();
  let waiting: Promise<EventSourceMessage> | undefined;
  const next = () => {
    waiting ??= reader.read().then(({ value }) => {
      waiting = undefined;
      if (!value) throw new Error("The stream has ended");
      return value;
    });
    waiting.catch(() => {});
    return waiting;
  };
  const isQuiet = (milliseconds: number) =>
    Promise.race([next().then(() => false), new Promise<boolean>((done) => setTimeout(done, milliseconds, true))]);
  return { next, isQuiet, leave: () => leaving.abort() };
}

function stepsOf({ data }: EventSourceMessage): number[] {
  return JSON.parse(data).map(({ step }: Metric) => step);
}

const json = async (path: string) => (await fetch(`${origin}/runs${path}`)).json();

describe("the list", () => {
  test("contains each folder with metrics, newest first, with its stages and whether it is running", async () => {
    await (await runWith("old", 3)).close();
    const hourAgo = Date.now() / 1000 - 3600;
    utimesSync(join(folder, "old", "metrics.jsonl"), hourAgo, hourAgo);
    await (await runWith("new", 2, "contrastive")).close();
    await (await runWith("new", 5)).close();
    mkdirSync(join(folder, "no-run"));
    writeFileSync(join(folder, "file"), "");
    const { runs } = (await json("")) as { runs: { name: string; stages: string[] }[] };
    expect(runs).toEqual([
      { name: "new", stages: expect.any(Array), lastStep: 5, changed: expect.any(Number), writing: true },
      { name: "old", stages: [""], lastStep: 3, changed: expect.closeTo(hourAgo, 0), writing: false },
    ]);
    expect(runs[0]?.stages.toSorted()).toEqual(["", "contrastive"]);
  });

  test("is empty if the folder does not exist", async () => {
    const response = await runsApi(join(folder, "missing")).request("/");
    expect(await response.json()).toEqual({ runs: [] });
  });
});

test("returns the metrics as written, also of a stage", async () => {
  await (await runWith("whole", 3)).close();
  await (await runWith("whole", 2, "contrastive")).close();
  appendFileSync(
    join(folder, "whole", "metrics.jsonl"),
    `{"kind":"train","st\n${JSON.stringify(train(4, Number.NaN))}\n{"kind":`,
  );
  expect(await json("/whole/metrics")).toEqual({
    metrics: [train(1), train(2), train(3), { ...train(4), loss: null }],
  });
  expect(await json("/whole/metrics?stage=contrastive")).toEqual({ metrics: [train(1), train(2)] });
});

test("many metrics arrive in chunks, none lost or repeated", async () => {
  const steps = Array.from({ length: 10_000 }, (_, i) => i + 1);
  mkdirSync(join(folder, "long"));
  writeFileSync(
    join(folder, "long", "metrics.jsonl"),
    steps.map((step) => `${JSON.stringify(train(step))}\n`).join(""),
  );
  const { metrics } = (await json("/long/metrics")) as { metrics: Metric[] };
  expect(metrics.map(({ step }) => step)).toEqual(steps);
  const listener = await listen("long/metrics");
  const heard: number[] = [];
  while (heard.length < steps.length) heard.push(...stepsOf(await listener.next()));
  expect(heard).toEqual(steps);
  listener.leave();
});

describe("a listener", () => {
  test("receives new lines, but no partial line", async () => {
    const log = await runWith("live", 2);
    const path = join(folder, "live", "metrics.jsonl");
    const listener = await listen("live/metrics");
    expect(stepsOf(await listener.next())).toEqual([1, 2]);
    await log.write(train(3));
    expect(stepsOf(await listener.next())).toEqual([3]);
    const line = `${JSON.stringify(train(4))}\n`;
    appendFileSync(path, line.slice(0, 30));
    expect(await listener.isQuiet(1500)).toBe(true);
    appendFileSync(path, line.slice(30));
    expect(stepsOf(await listener.next())).toEqual([4]);
    listener.leave();
    await log.close();
  });

  test("that reconnects resumes after the last event", async () => {
    const log = await runWith("again", 2);
    const first = await listen("again/metrics");
    const { id } = await first.next();
    first.leave();
    await log.write(train(3));
    await log.close();
    const second = await listen("again/metrics", id);
    const event = await second.next();
    expect([event.event, stepsOf(event)]).toEqual(["metrics", [3]]);
    second.leave();
  });

  test.each(["nonsense", "5-0000000000000000", "999999999-0123456789abcdef", "-1", "0-"])(
    "that comes back with %s begins anew",
    async (id) => {
      await (await runWith("lost", 2)).close();
      const listener = await listen("lost/metrics", id);
      expect((await listener.next()).event).toBe("restart");
      expect(stepsOf(await listener.next())).toEqual([1, 2]);
      listener.leave();
    },
  );

  test("receives restart when the run starts again, even with a longer file", async () => {
    await (await runWith("anew", 2)).close();
    const listener = await listen("anew/metrics");
    expect(stepsOf(await listener.next())).toEqual([1, 2]);
    const lines = [5, 6, 7].map((step) => `${JSON.stringify(train(step))}\n`).join("");
    writeFileSync(join(folder, "anew", "metrics.jsonl"), lines);
    // The file may be seen while it is empty.
    const heard: number[] = [];
    let restarts = 0;
    while (heard.length < 3) {
      const event = await listener.next();
      if (event.event === "restart") restarts++;
      else heard.push(...stepsOf(event));
    }
    expect(restarts).toBeGreaterThan(0);
    expect(heard).toEqual([5, 6, 7]);
    listener.leave();
  });

  test("receives restart when the run resumes from an earlier checkpoint", async () => {
    await (await runWith("resumed", 4)).close();
    const listener = await listen("resumed/metrics");
    expect(stepsOf(await listener.next())).toEqual([1, 2, 3, 4]);
    const log = await MetricsLog.open(join(folder, "resumed"), { resumeAt: 2 });
    expect((await listener.next()).event).toBe("restart");
    const heard = stepsOf(await listener.next());
    await log.write(train(3, 0.5));
    while (heard.length < 3) heard.push(...stepsOf(await listener.next()));
    expect(heard).toEqual([1, 2, 3]);
    listener.leave();
    await log.close();
  });

  test("waits while the file is truncated or missing", async () => {
    await (await runWith("gone", 2)).close();
    const path = join(folder, "gone", "metrics.jsonl");
    const listener = await listen("gone/metrics");
    await listener.next();
    rmSync(path);
    expect(await listener.isQuiet(1200)).toBe(true);
    writeFileSync(path, `${JSON.stringify(train(9))}\n`);
    expect((await listener.next()).event).toBe("restart");
    expect(stepsOf(await listener.next())).toEqual([9]);
    truncateSync(path, 0);
    expect((await listener.next()).event).toBe("restart");
    listener.leave();
  });

  test("that disconnects is no longer served", async () => {
    await (await runWith("left", 2)).close();
    const watchers = () =>
      process.getActiveResourcesInfo().filter((name) => name === "FSEVENTWRAP" || name === "FSEvent").length;
    const timers = () => process.getActiveResourcesInfo().filter((name) => name === "Timeout").length;
    const before = [watchers(), timers()];
    const listeners = await Promise.all(Array.from({ length: 10 }, () => listen("left/metrics")));
    for (const listener of listeners) await listener.next();
    expect(timers()).toBeGreaterThan((before[1] ?? 0) + 9);
    for (const listener of listeners) listener.leave();
    await expect.poll(() => timers(), { timeout: 5000 }).toBeLessThanOrEqual((before[1] ?? 0) + 3);
    expect(watchers()).toBeLessThanOrEqual(before[0] ?? 0);
  });
});

describe("outside of the folder", () => {
  const secret = join(folder, "..", "secret");
  mkdirSync(join(secret), { recursive: true });
  writeFileSync(join(secret, "metrics.jsonl"), `${JSON.stringify(train(666))}\n`);
  mkdirSync(join(folder, "linked-file"), { recursive: true });
  const canLink = process.platform !== "win32";
  if (canLink) {
    symlinkSync(secret, join(folder, "linked"));
    symlinkSync("..", join(folder, "parent"));
    symlinkSync(".", join(folder, "itself"));
    symlinkSync(join(secret, "metrics.jsonl"), join(folder, "linked-file", "metrics.jsonl"));
  }

  test.each([
    "..",
    ".",
    "%2e%2e",
    "..%2fsecret",
    "..%2Fsecret",
    "..%5csecret",
    "%2e%2e%2fsecret",
    "linked",
    "parent",
    "itself",
    "linked-file",
    "new%00",
    "new%2f..%2f..%2fsecret",
    encodeURIComponent(secret),
    "C:%5csecret",
    ".hidden",
    "",
    "%ff",
    "x".repeat(5000),
  ])("nothing is found by the run's name %.40s", async (name) => {
    const response = await fetch(`${origin}/runs/${name}/metrics`);
    expect(response.status).toBe(404);
    expect(await response.text()).not.toContain("666");
  });

  test.each(["../../secret/metrics", "..", "a/b", "a.b", "%00", "x".repeat(500)])(
    "nothing is found by the stage's name %.40s",
    async (stage) => {
      await (await runWith("staged", 1)).close();
      const response = await fetch(`${origin}/runs/staged/metrics?stage=${encodeURIComponent(stage)}`);
      expect(response.status).toBe(404);
    },
  );

  test("they are not listed, and none of their steps is", async () => {
    const { runs } = (await json("")) as { runs: { name: string; lastStep?: number }[] };
    expect(runs).not.toEqual([]);
    expect(runs.filter(({ name }) => /linked|parent|itself|secret/.test(name))).toEqual([]);
    expect(runs.map(({ lastStep }) => lastStep)).not.toContain(666);
    // Time stamps may contain any digits.
    expect(JSON.stringify(runs.map(({ name, lastStep }) => [name, lastStep]))).not.toMatch(/secret|666/);
  });
});
