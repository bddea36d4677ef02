/** Has the backend write the last answer of a chat: waits where it must, keeps what came, says how it ended. */
import { type Backend, BackendError, type GenerationOptions } from "../backend/backend.ts";
import { Store } from "../shell/store.ts";
import { type AssistantMessage, type Chat, changeAnswer, saidIn } from "./chat.ts";
import type { Library } from "./library.ts";

/** What is going on in a chat that is being answered. */
export type Progress =
  /** The model reads; nothing has come yet. */
  | { readonly kind: "reading" }
  | { readonly kind: "writing" }
  /** The server is busy or loading; it is asked again at that time (as of `Date.now`). */
  | { readonly kind: "waiting"; readonly why: "busy" | "loading"; readonly until: number };

/** How often a busy server is asked again, and after how many seconds if it does not say. */
const patience = { tries: 20, seconds: 3, longest: 60 };

export class Answering {
  /** The chats that are being answered. */
  readonly progress = new Store<ReadonlyMap<string, Progress>>(new Map());
  readonly #library: Library;
  readonly #backend: Backend;
  readonly #stops = new Map<string, AbortController>();

  constructor(library: Library, backend: Backend) {
    this.#library = library;
    this.#backend = backend;
  }

  /** Ends the answer of a chat, if one is being written; what came of it stays. */
  stop(chatId: string): void {
    this.#stops.get(chatId)?.abort();
  }

  /** Writes the last answer of a chat, which is empty. Never throws: problems become part of the answer. */
  async answer(
    chatId: string,
    how: { readonly decoding: GenerationOptions; readonly system?: string },
  ): Promise<AssistantMessage | undefined> {
    this.stop(chatId);
    const chat = this.#library.get(chatId);
    const answer = chat?.messages.at(-1);
    if (!chat || answer?.role !== "assistant") return undefined;
    const stop = new AbortController();
    this.#stops.set(chatId, stop);
    const change = (edit: (answer: AssistantMessage) => AssistantMessage) =>
      this.#library.change(chatId, (now) => (now.messages.at(-1)?.id === answer.id ? changeAnswer(now, edit) : now));
    try {
      await this.#write(chat, how, change, stop.signal);
    } catch (problem) {
      if (stop.signal.aborted) change((now) => ({ ...now, end: "stopped" }));
      else change((now) => ({ ...now, end: "problem", problem: named(problem) }));
    } finally {
      if (this.#stops.get(chatId) === stop) {
        this.#stops.delete(chatId);
        this.#setProgress(chatId, undefined);
      }
      await this.#library.save();
    }
    const last = this.#library.get(chatId)?.messages.at(-1);
    return last?.role === "assistant" ? last : undefined;
  }

  async #write(
    chat: Chat,
    how: { readonly decoding: GenerationOptions; readonly system?: string },
    change: (edit: (answer: AssistantMessage) => AssistantMessage) => void,
    signal: AbortSignal,
  ): Promise<void> {
    const messages = await saidIn(chat, (id) => this.#library.image(id));
    for (let tries = 1; ; tries++) {
      this.#setProgress(chat.id, { kind: "reading" });
      const started = performance.now();
      let first: number | undefined;
      try {
        for await (const event of this.#backend.answer({ messages, ...how }, signal)) {
          if (event.kind === "text") {
            if (first === undefined) this.#setProgress(chat.id, { kind: "writing" });
            first ??= performance.now();
            change((now) => ({ ...now, text: now.text + event.text }));
          } else {
            const { reason: end, tokens } = event;
            const begun = first ?? performance.now();
            const timing = { first: (begun - started) / 1000, rest: (performance.now() - begun) / 1000 };
            change((now) => ({
              ...now,
              text: now.text.trim(),
              end,
              timing: { ...timing, ...(tokens !== undefined && { tokens }) },
            }));
          }
        }
        return;
      } catch (problem) {
        const wait = first === undefined && tries < patience.tries ? waitFor(problem) : undefined;
        if (!wait || signal.aborted) throw problem;
        this.#setProgress(chat.id, { kind: "waiting", why: wait.why, until: Date.now() + wait.milliseconds });
        await sleep(wait.milliseconds, signal);
      }
    }
  }

  #setProgress(chatId: string, progress: Progress | undefined): void {
    this.progress.update((before) => {
      const after = new Map(before);
      if (progress) after.set(chatId, progress);
      else after.delete(chatId);
      return after;
    });
  }
}

/** How long to wait before asking again; undefined if that would not help. */
function waitFor(problem: unknown): { why: "busy" | "loading"; milliseconds: number } | undefined {
  if (!(problem instanceof BackendError)) return undefined;
  if (problem.kind !== "busy" && problem.kind !== "loading") return undefined;
  const seconds = Math.min(problem.retryAfter ?? patience.seconds, patience.longest);
  return { why: problem.kind, milliseconds: Math.max(seconds, 0.05) * 1000 };
}

function named(problem: unknown): NonNullable<AssistantMessage["problem"]> {
  if (problem instanceof BackendError) return { kind: problem.kind, message: problem.message };
  return { kind: "failed", message: problem instanceof Error ? problem.message : String(problem) };
}

function sleep(milliseconds: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const leave = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal.removeEventListener("abort", leave);
      resolve();
    }, milliseconds);
    signal.addEventListener("abort", leave, { once: true });
  });
}
