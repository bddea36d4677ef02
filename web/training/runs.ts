/** The training runs that the server knows: their list, and what one of them measures while it goes on. */
import { EventSourceParserStream } from "eventsource-parser/stream";
import type { RunSummary } from "../../src/server/runs/runs.ts";
import type { Metric } from "../../src/training/metrics/metrics.ts";
import { apiKey } from "../backend/api-key.ts";

/** What has come of a run: everything from the beginning, or what follows what came before. */
export interface RunNews {
  readonly metrics: readonly Metric[];
  readonly fromTheBeginning: boolean;
}

/** The runs, the one that was changed last first. @throws Error if the server cannot be asked */
export async function listRuns(signal: AbortSignal): Promise<readonly RunSummary[]> {
  const response = await ask("api/runs", signal);
  const { runs } = (await response.json()) as { runs: readonly RunSummary[] };
  return runs;
}

/** What a run has measured, and what it goes on to measure, until the signal. @throws Error if the connection ends */
export async function* followRun(run: string, stage: string, signal: AbortSignal): AsyncGenerator<RunNews, void> {
  const path = `api/runs/${encodeURIComponent(run)}/metrics?stage=${encodeURIComponent(stage)}`;
  const response = await ask(path, signal, "text/event-stream");
  const reader = response.body
    ?.pipeThrough(new TextDecoderStream() as ReadableWritablePair<string, Uint8Array>)
    .pipeThrough(new EventSourceParserStream())
    .getReader();
  let fromTheBeginning = true;
  for (;;) {
    const { done, value } = (await reader?.read()) ?? { done: true };
    if (done || !value) throw new Error("The connection to the server has ended");
    if (value.event === "restart") fromTheBeginning = true;
    if (value.event !== "metrics") continue;
    yield { metrics: JSON.parse(value.data) as Metric[], fromTheBeginning };
    fromTheBeginning = false;
  }
}

async function ask(path: string, signal: AbortSignal, accept = "application/json"): Promise<Response> {
  const headers = new Headers({ accept });
  if (apiKey.value) headers.set("authorization", `Bearer ${apiKey.value}`);
  const response = await fetch(new URL(path, new URL(".", location.href)), { headers, signal });
  if (!response.ok) throw new Error(`The server answered ${response.status} ${response.statusText}`);
  return response;
}
