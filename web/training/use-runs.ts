/** Runs and their metrics as state of a component, kept up to date. */
import { useEffect, useState } from "preact/hooks";
import type { RunSummary } from "../../src/server/runs/runs.ts";
import type { Metric } from "../../src/training/metrics/metrics.ts";
import { followRun, listRuns } from "./runs.ts";

export type Loading<T> =
  | { readonly kind: "loading" }
  | { readonly kind: "failed"; readonly message: string }
  | { readonly kind: "ready"; readonly value: T };

/** How long to wait before asking again, in milliseconds. */
const listEvery = 10_000;
const retryAfter = 3000;

/** The runs, looked up again every few seconds. */
export function useRuns(): Loading<readonly RunSummary[]> {
  const [runs, setRuns] = useState<Loading<readonly RunSummary[]>>({ kind: "loading" });
  useEffect(
    () =>
      repeat(listEvery, async (signal) => {
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

/** What a run has measured, as it goes on. What was shown stays while a broken connection is made anew. */
export function useMetrics(run: string, stage: string): readonly Metric[] {
  const [metrics, setMetrics] = useState<readonly Metric[]>([]);
  useEffect(() => {
    setMetrics([]);
    return repeat(retryAfter, async (signal) => {
      try {
        for await (const news of followRun(run, stage, signal)) {
          setMetrics((before) => (news.fromTheBeginning ? news.metrics : [...before, ...news.metrics]));
        }
      } catch {
        // It is tried again.
      }
    });
  }, [run, stage]);
  return metrics;
}

/** Does something again and again, so many milliseconds after it has ended. The returned function ends that. */
function repeat(milliseconds: number, task: (signal: AbortSignal) => Promise<void>): () => void {
  const ended = new AbortController();
  let timer: ReturnType<typeof setTimeout> | undefined;
  const again = async () => {
    await task(ended.signal);
    if (!ended.signal.aborted) timer = setTimeout(again, milliseconds);
  };
  void again();
  return () => {
    ended.abort();
    clearTimeout(timer);
  };
}
