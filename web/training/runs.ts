/** Hooks for the training runs on the server: their list, and the live metrics of one. */
import { useEffect, useState } from "preact/hooks";
import type { RunSummary } from "../../src/server/runs/runs.ts";
import type { Metric } from "../../src/training/metrics/metrics.ts";
import { readEvents, request } from "../backend/http.ts";

export type Loading<T> =
  | { readonly kind: "loading" }
  | { readonly kind: "failed"; readonly message: string }
  | { readonly kind: "ready"; readonly value: T };

const listIntervalMs = 10_000;
const retryDelayMs = 3000;

/** The list of runs, polled. */
export function useRuns(): Loading<readonly RunSummary[]> {
  const [runs, setRuns] = useState<Loading<readonly RunSummary[]>>({ kind: "loading" });
  useEffect(
    () =>
      repeat(listIntervalMs, async (signal) => {
        try {
          setRuns({ kind: "ready", value: await listRuns(signal) });
        } catch (error) {
          if (!signal.aborted) setRuns({ kind: "failed", message: (error as Error).message });
        }
      }),
    [],
  );
  return runs;
}

/** The live metrics of a run. They stay while a lost connection is restored. */
export function useMetrics(run: string, stage: string): readonly Metric[] {
  const [metrics, setMetrics] = useState<readonly Metric[]>([]);
  useEffect(() => {
    setMetrics([]);
    return repeat(retryDelayMs, async (signal) => {
      try {
        for await (const update of followRun(run, stage, signal)) {
          setMetrics((before) => (update.reset ? update.metrics : [...before, ...update.metrics]));
        }
      } catch {
        // The next attempt follows.
      }
    });
  }, [run, stage]);
  return metrics;
}

/** Runs a task again each time it ends, after a pause. @returns a function that stops it */
function repeat(milliseconds: number, task: (signal: AbortSignal) => Promise<void>): () => void {
  const controller = new AbortController();
  let timer: ReturnType<typeof setTimeout> | undefined;
  const run = async () => {
    await task(controller.signal);
    if (!controller.signal.aborted) timer = setTimeout(run, milliseconds);
  };
  void run();
  return () => {
    controller.abort();
    clearTimeout(timer);
  };
}

/** New metrics of a run. */
interface RunUpdate {
  readonly metrics: readonly Metric[];
  /** Whether they replace all earlier ones. */
  readonly reset: boolean;
}

/** The runs, most recently changed first. @throws HttpError */
async function listRuns(signal: AbortSignal): Promise<readonly RunSummary[]> {
  const response = await request("api/runs", { signal });
  const { runs } = (await response.json()) as { runs: readonly RunSummary[] };
  return runs;
}

/** Yields the metrics of a run so far, and new ones as they are logged. @throws Error when the connection ends */
async function* followRun(run: string, stage: string, signal: AbortSignal): AsyncGenerator<RunUpdate, void> {
  const path = `api/runs/${encodeURIComponent(run)}/metrics?stage=${encodeURIComponent(stage)}`;
  let reset = true;
  const headers = { accept: "text/event-stream" };
  for await (const { event, data } of readEvents(await request(path, { headers, signal }))) {
    if (event === "restart") reset = true;
    if (event !== "metrics") continue;
    yield { metrics: JSON.parse(data) as Metric[], reset };
    reset = false;
  }
  throw new Error("The server closed the connection");
}
