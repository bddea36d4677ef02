/** The training runs that the server knows: their list, and what one of them measures while it goes on. */
import type { RunSummary } from "../../src/server/runs/runs.ts";
import type { Metric } from "../../src/training/metrics/metrics.ts";
import { askServer } from "../backend/ask.ts";
import { eventsOf } from "../backend/events.ts";

/** What has come of a run: everything from the beginning, or what follows what came before. */
export interface RunNews {
  readonly metrics: readonly Metric[];
  readonly fromTheBeginning: boolean;
}

/** The runs, the one that was changed last first. @throws Error if the server cannot be asked */
export async function listRuns(signal: AbortSignal): Promise<readonly RunSummary[]> {
  const response = await askServer("api/runs", { signal });
  const { runs } = (await response.json()) as { runs: readonly RunSummary[] };
  return runs;
}

/** What a run has measured, and what it goes on to measure, until the signal. @throws Error if the connection ends */
export async function* followRun(run: string, stage: string, signal: AbortSignal): AsyncGenerator<RunNews, void> {
  const path = `api/runs/${encodeURIComponent(run)}/metrics?stage=${encodeURIComponent(stage)}`;
  let fromTheBeginning = true;
  const headers = { accept: "text/event-stream" };
  for await (const { event, data } of eventsOf(await askServer(path, { headers, signal }))) {
    if (event === "restart") fromTheBeginning = true;
    if (event !== "metrics") continue;
    yield { metrics: JSON.parse(data) as Metric[], fromTheBeginning };
    fromTheBeginning = false;
  }
  throw new Error("The connection to the server has ended");
}
