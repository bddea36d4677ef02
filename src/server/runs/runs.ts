/** The training runs in a folder over HTTP: a list, and their metrics, also as a live stream. */
import { lstat, readdir, realpath } from "node:fs/promises";
import { isAbsolute, join, relative, sep } from "node:path";
import { Hono } from "hono";
import { streamSSE } from "hono/streaming";
import { openAiError } from "../errors.ts";
import { followMetrics, lastMetrics, type MetricLine, readMetricsChunk } from "./metrics-tail.ts";

export interface RunSummary {
  readonly name: string;
  /** Stages with a metrics file of their own, the least recently changed first; "" is the stage of `metrics.jsonl`. */
  readonly stages: readonly string[];
  /** Last step in the most recently changed metrics file; undefined if it is empty. */
  readonly lastStep?: number;
  /** Time of the last change as a Unix timestamp in seconds. */
  readonly changed: number;
  /** Whether the run seems to be training: its last line is recent compared with their interval. */
  readonly writing: boolean;
}

/** Response of `GET /:run/metrics`. */
interface RunMetrics {
  readonly metrics: readonly MetricLine[];
}

const heartbeatMilliseconds = 15_000;
const recentSeconds = 60;

/**
 * Routes for training runs.
 *
 * | route                           | response                                                      |
 * | ------------------------------- | ------------------------------------------------------------- |
 * | `GET /`                         | the runs, the most recently changed first                     |
 * | `GET /:run/metrics?stage=STAGE` | the metrics so far; with `accept: text/event-stream`, a stream |
 *
 * The stream has the events `metrics`, each with a list, and `restart` if the earlier metrics are obsolete. `Last-Event-ID`
 * resumes a stream.
 */
export function runsApi(folder: string): Hono {
  const app = new Hono();
  app.get("/", async (context) => context.json({ runs: await listRuns(folder) }));
  app.get("/:run/metrics", async (context) => {
    const { run } = context.req.param();
    const path = await metricsPath(folder, run, context.req.query("stage") ?? "");
    if (!path || !(await readMetricsChunk(path))) {
      throw openAiError(404, {
        message: "Unknown run, or it has no metrics for this stage.",
        code: "run_not_found",
      });
    }
    if (!/\btext\/event-stream\b/i.test(context.req.header("accept") ?? "")) {
      return context.json<RunMetrics>({ metrics: await readAll(path) });
    }
    context.header("cache-control", "no-store");
    // Disables buffering in proxies.
    context.header("x-accel-buffering", "no");
    return streamSSE(context, async (stream) => {
      const disconnected = new AbortController();
      stream.onAbort(() => disconnected.abort());
      const heartbeat = setInterval(() => stream.write(": still here\n\n"), heartbeatMilliseconds);
      try {
        const lastEventId = context.req.header("last-event-id");
        for await (const { metrics, cursor, restarted } of followMetrics(path, lastEventId, disconnected.signal)) {
          if (restarted) await stream.writeSSE({ event: "restart", data: "{}" });
          await stream.writeSSE({ event: "metrics", id: cursor, data: JSON.stringify(metrics) });
        }
      } finally {
        clearInterval(heartbeat);
      }
    });
  });
  return app;
}

async function listRuns(folder: string): Promise<RunSummary[]> {
  const names = await readdir(folder).catch(() => []);
  const runs = await Promise.all(names.map((name) => summarizeRun(folder, name)));
  return runs.filter((run) => run !== undefined).sort((a, b) => b.changed - a.changed);
}

async function summarizeRun(folder: string, name: string): Promise<RunSummary | undefined> {
  const path = await runFolder(folder, name);
  if (path === undefined) return undefined;
  const files = await readdir(path).catch(() => []);
  const found = await Promise.all(
    files.map(async (file) => {
      const stage = /^metrics(?:\.([\w-]+))?\.jsonl$/.exec(file);
      const metricsFile = join(path, file);
      const info = stage && (await lstat(metricsFile).catch(() => undefined));
      return info?.isFile() ? { path: metricsFile, stage: stage?.[1] ?? "", changed: info.mtimeMs / 1000 } : undefined;
    }),
  );
  const stages = found.filter((stage) => stage !== undefined).sort((a, b) => a.changed - b.changed);
  const newest = stages.at(-1);
  if (!newest) return undefined;
  const lines = await lastMetrics(newest.path);
  return {
    name,
    stages: stages.map(({ stage }) => stage),
    lastStep: lines.at(-1)?.step,
    changed: newest.changed,
    writing: Date.now() / 1000 - newest.changed < recentSeconds + 3 * lineInterval(lines),
  };
}

/** Seconds between the last two lines. */
function lineInterval(lines: readonly MetricLine[]): number {
  const [before, last] = lines.slice(-2);
  return before && last ? Math.max(0, last.time - before.time) : 0;
}

async function metricsPath(folder: string, run: string, stage: string): Promise<string | undefined> {
  const path = await runFolder(folder, run);
  if (path === undefined || !/^[\w-]*$/.test(stage)) return undefined;
  return join(path, stage === "" ? "metrics.jsonl" : `metrics.${stage}.jsonl`);
}

/** The real path of a run; undefined if it does not exist, or the name or a link leads out of `folder`. */
async function runFolder(folder: string, name: string): Promise<string | undefined> {
  if (name === "" || name.startsWith(".") || /[/\\:\0]/.test(name)) return undefined;
  const [root, path] = await Promise.all([realpath(folder), realpath(join(folder, name))]).catch(() => []);
  if (root === undefined || path === undefined) return undefined;
  const between = relative(root, path);
  return between === "" || between === ".." || between.startsWith(`..${sep}`) || isAbsolute(between) ? undefined : path;
}

async function readAll(path: string): Promise<MetricLine[]> {
  const all: MetricLine[] = [];
  let cursor: string | undefined;
  for (;;) {
    const chunk = await readMetricsChunk(path, cursor);
    if (!chunk || chunk.cursor === cursor) return all;
    if (chunk.restarted) all.length = 0;
    all.push(...chunk.metrics);
    cursor = chunk.cursor;
  }
}
