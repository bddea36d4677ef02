/** Entry point of the process that `ImageSearch` starts: runs a `LocalImageSearch` until it is closed or the parent exits. */
import type { InvalidSample } from "../data/dataset.ts";
import type { ImageInput } from "../engine/engine.ts";
import { type ErrorMessage, toErrorMessage } from "../engine/port.ts";
import type { IndexOptions } from "./image-index.ts";
import { type FindOptions, type FoundImage, LocalImageSearch, type LocalSearchOptions } from "./local-image-search.ts";

type OpenOptions = Omit<LocalSearchOptions, "onProgress" | "onProblem" | "onMessage" | "signal">;
type CallOptions = Omit<FindOptions, "signal">;

export type SearchCall =
  | { readonly kind: "open"; readonly folder: string; readonly options: OpenOptions }
  | { readonly kind: "update" }
  | { readonly kind: "search"; readonly text: string; readonly options: CallOptions }
  | { readonly kind: "like"; readonly image: ImageInput; readonly options: CallOptions };

/** State of the index after a call, and what the call has found. */
export interface SearchResult {
  readonly size: number;
  readonly problems: readonly InvalidSample[];
  readonly found: readonly FoundImage[];
}

export type ToSearch =
  | { readonly kind: "call"; readonly id: number; readonly call: SearchCall }
  | { readonly kind: "cancel"; readonly id: number }
  | { readonly kind: "close" };

/** The last message of each call is its result or its error. */
export type FromSearch = { readonly id: number } & (
  | { readonly kind: "progress"; readonly done: number; readonly total: number }
  | { readonly kind: "problem"; readonly problem: InvalidSample }
  | { readonly kind: "message"; readonly text: string }
  | { readonly kind: "result"; readonly result: SearchResult }
  | { readonly kind: "error"; readonly error: ErrorMessage }
);

const running = new Map<number, { readonly controller: AbortController; readonly done: Promise<void> }>();
let opening: Promise<LocalImageSearch> | undefined;

function post(message: FromSearch): void {
  // Without a callback, an error of a closed channel would be thrown.
  process.send?.(message, undefined, undefined, () => {});
}

async function handle(id: number, call: SearchCall, signal: AbortSignal): Promise<void> {
  try {
    post({ kind: "result", id, result: await run(id, call, signal) });
  } catch (error) {
    post({ kind: "error", id, error: toErrorMessage(error) });
  }
}

async function run(id: number, call: SearchCall, signal: AbortSignal): Promise<SearchResult> {
  const options: IndexOptions = {
    onProgress: (done, total) => post({ kind: "progress", id, done, total }),
    onProblem: (problem) => post({ kind: "problem", id, problem }),
    onMessage: (text) => post({ kind: "message", id, text }),
    signal,
  };
  if (call.kind === "open") opening = LocalImageSearch.open(call.folder, { ...call.options, ...options });
  const search = await opening;
  if (!search) throw new Error("The first call must open a folder.");
  if (call.kind === "update") await search.update(options);
  let found: readonly FoundImage[] = [];
  if (call.kind === "search") found = await search.search(call.text, { ...call.options, signal });
  if (call.kind === "like") found = await search.like(call.image, { ...call.options, signal });
  return { size: search.size, problems: search.problems, found };
}

/** Waits for running calls, so that an index being built is saved. */
async function exit(): Promise<void> {
  for (const { controller } of running.values()) controller.abort(new Error("The image search is closed."));
  await Promise.all([...running.values()].map(({ done }) => done));
  await opening?.then((search) => search.close()).catch(() => {});
  process.exit();
}

// A terminal sends its signals to both processes. The parent decides what they mean, and closes this process.
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => {});
process.on("disconnect", exit);
process.on("message", (message: ToSearch) => {
  if (message.kind === "close") void exit();
  else if (message.kind === "cancel") running.get(message.id)?.controller.abort();
  else {
    const { id, call } = message;
    const controller = new AbortController();
    const done = handle(id, call, controller.signal).finally(() => running.delete(id));
    running.set(id, { controller, done });
  }
});
