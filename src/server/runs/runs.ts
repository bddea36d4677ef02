/** The training runs below a folder, for the page that draws their curves while they go on. */
import { lstat, readdir, realpath } from "node:fs/promises";
import { isAbsolute, join, relative, sep } from "node:path";
import { Hono } from "hono";
import { streamSSE } from "hono/streaming";
import { followMetrics, lastMetrics, type MetricLine, readMetricsChunk } from "./metrics-tail.ts";
import { openAiError } from "../errors.ts";

export interface RunSummary {
  readonly name: string;
  /** Stages that count their steps by themselves, the one of `metrics.jsonl` as "". */
  readonly stages: readonly string[];
  /** Of the file that was changed last; undefined if nothing was measured yet. */
  readonly lastStep?: number;
  /** Unix seconds. */
  readonly changed: number;
  /** Whether the last line is so young that the next one may still come. */
  readonly writing: boolean;
}

/** The answer to `GET /:run/metrics`. */
interface RunMetrics {
  readonly metrics: readonly MetricLine[];
}

const heartbeatMilliseconds = 15_000;
const youngSeconds = 60;

/**
 * `GET /` lists the runs, the one that was changed last first. `GET /:run/metrics?stage=STAGE` gives what was measured so far;
 * with `accept: text/event-stream` it goes on as the run does: events `metrics`, each a list, and `restart` if what came
 * before is no longer true. `Last-Event-ID` goes on where a connection broke off.
 */
export function runsApi(folder: string): Hono {
  const app = new Hono();
  app.get("/", async (context) => context.json({ runs: await listRuns(folder) }));
  app.get("/:run/metrics", async (context) => {
    const { run } = context.req.param();
    const path = await metricsPath(folder, run, context.req.query("stage") ?? "");
    if (!path || !(await readMetricsChunk(path))) {
      throw openAiError(404, {
        message: "There is no such run, or it has no metrics of this stage",
        code: "run_not_found",
      });
    }
    if (!/\btext\/event-stream\b/i.test(context.req.header("accept") ?? "")) {
      return context.json<RunMetrics>({ metrics: await readAll(path) });
    }
    context.header("cache-control", "no-store");
    // Proxies are not to collect the events.
    context.header("x-accel-buffering", "no");
    return streamSSE(context, async (stream) => {
      const ended = new AbortController();
      stream.onAbort(() => ended.abort());
      const heartbeat = setInterval(() => stream.write(": still here\n\n"), heartbeatMilliseconds);
      try {
        for await (const { metrics, place, restarted } of followMetrics(
          path,
          context.req.header("last-event-id"),
          ended.signal,
        )) {
          if (restarted) await stream.writeSSE({ event: "restart", data: "{}" });
          await stream.writeSSE({ event: "metrics", id: place, data: JSON.stringify(metrics) });
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
  const runs = await Promise.all(names.map((name) => summary(folder, name)));
  return runs.filter((run) => run !== undefined).sort((a, b) => b.changed - a.changed);
}

async function summary(folder: string, name: string): Promise<RunSummary | undefined> {
  const inside = await runFolder(folder, name);
  const files = inside === undefined ? [] : await readdir(inside).catch(() => []);
  const found = await Promise.all(
    files.map(async (file) => {
      const stage = /^metrics(?:\.([\w-]+))?\.jsonl$/.exec(file);
      const path = join(inside ?? "", file);
      const info = stage && (await lstat(path).catch(() => undefined));
      return info?.isFile() ? { path, stage: stage?.[1] ?? "", changed: info.mtimeMs / 1000 } : undefined;
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
    writing: Date.now() / 1000 - newest.changed < youngSeconds + 3 * interval(lines),
  };
}

/** Seconds between the last two lines. */
function interval(lines: readonly MetricLine[]): number {
  const [before, last] = lines.slice(-2);
  return before && last ? Math.max(0, last.time - before.time) : 0;
}

async function metricsPath(folder: string, run: string, stage: string): Promise<string | undefined> {
  const inside = await runFolder(folder, run);
  if (inside === undefined || !/^[\w-]*$/.test(stage)) return undefined;
  return join(inside, stage === "" ? "metrics.jsonl" : `metrics.${stage}.jsonl`);
}

/** A folder right below `folder`, undefined if the name or a link leads elsewhere. */
async function runFolder(folder: string, name: string): Promise<string | undefined> {
  if (name === "" || name.startsWith(".") || /[/\\:\0]/.test(name)) return undefined;
  const [root, inside] = await Promise.all([realpath(folder), realpath(join(folder, name))]).catch(() => []);
  if (root === undefined || inside === undefined) return undefined;
  const way = relative(root, inside);
  return way === "" || way === ".." || way.startsWith(`..${sep}`) || isAbsolute(way) ? undefined : inside;
}

async function readAll(path: string): Promise<MetricLine[]> {
  const all: MetricLine[] = [];
  let place: string | undefined;
  for (;;) {
    const piece = await readMetricsChunk(path, place);
    if (!piece || piece.place === place) return all;
    if (piece.restarted) all.length = 0;
    all.push(...piece.metrics);
    place = piece.place;
  }
}
