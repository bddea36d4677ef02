/** Running generations: streams answers into their chats, retries while the server is busy, and records how each ended. */
import { type Backend, BackendError, type GenerationOptions } from "../backend/backend.ts";
import { Store } from "../shell/store.ts";
import { type AssistantMessage, type Chat, promptMessages, updateAnswer } from "./chat.ts";
import type { Library } from "./library.ts";

export type Progress =
  /** Waiting for the first text. */
  | { readonly kind: "reading" }
  | { readonly kind: "writing" }
  /** The server is busy or loading; the next attempt starts at `until` (compare with `Date.now()`). */
  | { readonly kind: "waiting"; readonly reason: "busy" | "loading"; readonly until: number };

export interface GenerateOptions {
  readonly options: GenerationOptions;
  readonly system?: string;
}

type EditAnswer = (edit: (answer: AssistantMessage) => AssistantMessage) => void;

const retry = { maxAttempts: 20, defaultSeconds: 3, maxSeconds: 60 };

export class Generations {
  /** By chat id; chats without a running generation are missing. */
  readonly progress = new Store<ReadonlyMap<string, Progress>>(new Map());
  readonly #library: Library;
  readonly #backend: Backend;
  readonly #controllers = new Map<string, AbortController>();

  constructor(library: Library, backend: Backend) {
    this.#library = library;
    this.#backend = backend;
  }

  /** Stops the generation of a chat, if one is running. The text generated so far stays. */
  stop(chatId: string): void {
    this.#controllers.get(chatId)?.abort();
  }

  /** Generates the last, still empty answer of a chat. Never throws: errors become part of the answer. */
  async run(chatId: string, generate: GenerateOptions): Promise<AssistantMessage | undefined> {
    this.stop(chatId);
    const chat = this.#library.get(chatId);
    const answer = chat?.messages.at(-1);
    if (!chat || answer?.role !== "assistant") return undefined;
    const controller = new AbortController();
    this.#controllers.set(chatId, controller);
    const edit: EditAnswer = (change) =>
      this.#library.update(chatId, (now) => (now.messages.at(-1)?.id === answer.id ? updateAnswer(now, change) : now));
    try {
      await this.#stream(chat, generate, { edit, signal: controller.signal });
    } catch (error) {
      if (controller.signal.aborted) edit((now) => ({ ...now, end: "stopped" }));
      else edit((now) => ({ ...now, end: "problem", problem: toProblem(error) }));
    } finally {
      if (this.#controllers.get(chatId) === controller) {
        this.#controllers.delete(chatId);
        this.#setProgress(chatId, undefined);
      }
      await this.#library.save();
    }
    const last = this.#library.get(chatId)?.messages.at(-1);
    return last?.role === "assistant" ? last : undefined;
  }

  async #stream(
    chat: Chat,
    generate: GenerateOptions,
    { edit, signal }: { readonly edit: EditAnswer; readonly signal: AbortSignal },
  ): Promise<void> {
    const messages = await promptMessages(chat, (id) => this.#library.image(id));
    for (let attempt = 1; ; attempt++) {
      this.#setProgress(chat.id, { kind: "reading" });
      const started = performance.now();
      let firstText: number | undefined;
      try {
        for await (const event of this.#backend.generate({ messages, ...generate }, signal)) {
          if (event.kind === "text") {
            if (firstText === undefined) this.#setProgress(chat.id, { kind: "writing" });
            firstText ??= performance.now();
            edit((answer) => ({ ...answer, text: answer.text + event.text }));
          } else {
            const first = ((firstText ?? performance.now()) - started) / 1000;
            const rest = (performance.now() - started) / 1000 - first;
            const timing = { first, rest, tokens: event.tokens };
            edit((answer) => ({ ...answer, text: answer.text.trim(), end: event.reason, timing }));
          }
        }
        return;
      } catch (error) {
        const delay = firstText === undefined && attempt < retry.maxAttempts ? retryDelay(error) : undefined;
        if (!delay || signal.aborted) throw error;
        this.#setProgress(chat.id, { kind: "waiting", reason: delay.reason, until: Date.now() + delay.milliseconds });
        await sleep(delay.milliseconds, signal);
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

/** How long to wait before the next attempt; undefined for an error that a retry does not fix. */
function retryDelay(error: unknown): { reason: "busy" | "loading"; milliseconds: number } | undefined {
  if (!(error instanceof BackendError)) return undefined;
  if (error.kind !== "busy" && error.kind !== "loading") return undefined;
  const seconds = Math.min(error.retryAfter ?? retry.defaultSeconds, retry.maxSeconds);
  return { reason: error.kind, milliseconds: Math.max(seconds, 0.05) * 1000 };
}

function toProblem(error: unknown): NonNullable<AssistantMessage["problem"]> {
  if (error instanceof BackendError) return { kind: error.kind, message: error.message };
  return { kind: "failed", message: error instanceof Error ? error.message : String(error) };
}

/** Waits. @throws the reason of the signal when it aborts */
function sleep(milliseconds: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const abort = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal.removeEventListener("abort", abort);
      resolve();
    }, milliseconds);
    signal.addEventListener("abort", abort, { once: true });
  });
}
