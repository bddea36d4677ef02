/** Finds images in a folder by text, or by similarity to another image, without blocking the calling thread. */
import { type ChildProcess, fork } from "node:child_process";
import { setMaxListeners } from "node:events";
import { realpath } from "node:fs/promises";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { modelPath } from "../chat/models.ts";
import type { InvalidSample } from "../data/dataset.ts";
import type { ImageInput } from "../engine/engine.ts";
import { fromErrorMessage } from "../engine/port.ts";
import { fetchLanguageModel, readModelType } from "../models/model-folder.ts";
import { withLargePages } from "../runtime/environment.ts";
import type { IndexOptions } from "./image-index.ts";
import type { FindOptions, FoundImage } from "./local-image-search.ts";
import type { RetrievalModelOptions } from "./open-retrieval-model.ts";
import type { FromSearch, SearchCall, SearchResult, ToSearch } from "./search-process.ts";

export type { FindOptions, FoundImage } from "./local-image-search.ts";

export interface SearchOptions extends RetrievalModelOptions, Omit<IndexOptions, "ownsFile"> {
  /** A MiniGPT-4 with a contrastive head, or the folder of a pre-trained Q-Former. @default "nano" */
  readonly model?: string;
  /** Path of the index file. @default a file in the user's cache folder, one for each folder and model */
  readonly index?: string;
}

type Callbacks = Pick<IndexOptions, "onProgress" | "onProblem" | "onMessage">;

/**
 * Searches the images of one folder with one model. The model and the index live in a process of their own, so the calling
 * thread stays free while images are embedded. If that process crashes, the running calls fail and the next call starts it again.
 *
 * @example
 * ```ts
 * import { ImageSearch } from "minigpt4";
 *
 * await using images = await ImageSearch.open("photos");
 * for (const { path, score } of await images.search("a dog in the snow")) console.log(score, path);
 * ```
 */
export class ImageSearch {
  private readonly folder: string;
  private readonly openCall: SearchCall;
  private readonly onMessage: Callbacks["onMessage"];
  private process: SearchProcess;
  private state: SearchResult = { size: 0, problems: [], found: [] };
  private closing: Promise<void> | undefined;

  private constructor(folder: string, openCall: SearchCall, onMessage: Callbacks["onMessage"]) {
    this.folder = folder;
    this.openCall = openCall;
    this.onMessage = onMessage;
    this.process = new SearchProcess();
  }

  /**
   * Opens a model and the index of a folder and its subfolders. Images that are new or have changed are embedded; the index is
   * kept in a file, so that they are embedded only once.
   * @throws Error naming the folder, file or head that is missing; the signal's reason if it is aborted (what has been embedded is kept)
   *
   * @example
   * ```ts
   * import { ImageSearch } from "minigpt4";
   *
   * const onProgress = (done: number, total: number) => console.log(`${done}/${total}`);
   * await using images = await ImageSearch.open("photos", { onProgress });
   * console.log(images.size);
   * ```
   */
  static async open(folder: string, options: SearchOptions = {}): Promise<ImageSearch> {
    const { model = "nano", index, rebuild, features, pull, signal, ...others } = options;
    const { onProgress, onProblem, onMessage, ...session } = others;
    const path = resolve(modelPath(model));
    const realFolder = await realpath(folder);
    if ((await readModelType(path)) !== "blip2_qformer") await fetchLanguageModel(path, { ...pull, signal });
    const openOptions = {
      ...session,
      modelPath: path,
      index: index === undefined ? undefined : resolve(index),
      features: features === undefined ? undefined : resolve(features),
    };
    const call: SearchCall = { kind: "open", folder: realFolder, options: openOptions };
    const search = new ImageSearch(folder, call, onMessage);
    try {
      const first: SearchCall = { ...call, options: { ...openOptions, rebuild } };
      search.state = await search.process.call(first, { onProgress, onProblem, onMessage }, signal);
      return search;
    } catch (error) {
      await search.close();
      throw error;
    }
  }

  /** Number of images that can be found. */
  get size(): number {
    return this.state.size;
  }

  /** Images that are damaged or cannot be read. */
  get problems(): readonly InvalidSample[] {
    return this.state.problems;
  }

  /** Updates the index to what has been added, changed or removed in the folder. */
  async update({
    signal,
    ...callbacks
  }: Pick<IndexOptions, "onProgress" | "onProblem" | "signal"> = {}): Promise<void> {
    this.state = await this.call({ kind: "update" }, signal, callbacks);
  }

  /**
   * Finds the images that match a text, best first.
   * @throws RequestError if the text contains no word; the signal's reason if it is aborted
   *
   * @example
   * ```ts
   * import { ImageSearch } from "minigpt4";
   *
   * await using images = await ImageSearch.open("photos");
   * const [best] = await images.search("a red car", { top: 1 });
   * console.log(best?.path);
   * ```
   */
  async search(text: string, { signal, ...options }: FindOptions = {}): Promise<FoundImage[]> {
    return this.withPaths(await this.call({ kind: "search", text, options }, signal));
  }

  /**
   * Finds the images most similar to an image, which may be one of the folder. The score is the mean, over the vectors of the given
   * image, of the largest similarity to a vector of the other (late interaction, arXiv 2004.12832).
   * @throws RequestError if the image cannot be read; the signal's reason if it is aborted
   *
   * @example
   * ```ts
   * import { ImageSearch } from "minigpt4";
   *
   * await using images = await ImageSearch.open("photos");
   * for (const { path, score } of await images.like("photos/cat.jpg", { top: 5 })) console.log(score, path);
   * ```
   */
  async like(image: ImageInput, { signal, ...options }: Omit<FindOptions, "rerank"> = {}): Promise<FoundImage[]> {
    // The process may have another working directory by now.
    const input = typeof image === "string" ? resolve(image) : image;
    return this.withPaths(await this.call({ kind: "like", image: input, options }, signal));
  }

  /** Ends the process and frees its memory. Running calls fail. */
  close(): Promise<void> {
    this.closing ??= this.process.close();
    return this.closing;
  }

  /** Same as `close()`, for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  private async call(call: SearchCall, signal?: AbortSignal, callbacks: Callbacks = {}): Promise<SearchResult> {
    signal?.throwIfAborted();
    if (this.closing) throw closedError();
    const { onMessage } = this;
    if (this.process.hasExited) {
      this.process = new SearchProcess();
      // Not awaited: the process opens the index before it handles later calls, and each of them fails if that fails.
      this.process.call(this.openCall, { onMessage }).catch(() => {});
    }
    return this.process.call(call, { onMessage, ...callbacks }, signal);
  }

  /** Paths begin with the folder as the caller has written it. */
  private withPaths({ found }: SearchResult): FoundImage[] {
    return found.map((image) => ({ ...image, path: join(this.folder, image.name) }));
  }
}

interface PendingCall {
  readonly callbacks: Callbacks;
  resolve(result: SearchResult): void;
  reject(error: unknown): void;
}

/** A running search process: calls go in, results come out. */
class SearchProcess {
  private readonly child: ChildProcess = forkSearch();
  private readonly pending = new Map<number, PendingCall>();
  private readonly exited: Promise<void>;
  private nextId = 0;
  private isClosing = false;
  hasExited = false;

  constructor() {
    const { child } = this;
    child.on("message", (message: FromSearch) => this.receive(message));
    this.exited = new Promise((resolve) => {
      const onExit = (reason: string) => {
        this.hasExited = true;
        const error = this.isClosing
          ? closedError()
          : new Error(`The image search process exited unexpectedly: ${reason}. The next call starts it again.`);
        for (const call of this.pending.values()) call.reject(error);
        this.pending.clear();
        resolve();
      };
      child.once("error", (error) => onExit(error.message));
      child.once("close", (code, signal) => onExit(signal ? `signal ${signal}` : `exit code ${code}`));
    });
    this.keepAlive(false);
  }

  async call(call: SearchCall, callbacks: Callbacks = {}, signal?: AbortSignal): Promise<SearchResult> {
    signal?.throwIfAborted();
    // One signal may cancel many calls, which is not a leak.
    if (signal) setMaxListeners(0, signal);
    const id = this.nextId++;
    let onAbort = () => {};
    try {
      return await new Promise<SearchResult>((resolve, reject) => {
        this.pending.set(id, { callbacks, resolve, reject });
        this.keepAlive(true);
        onAbort = () => {
          this.post({ kind: "cancel", id });
          reject(signal?.reason);
        };
        signal?.addEventListener("abort", onAbort, { once: true });
        this.post({ kind: "call", id, call });
      });
    } finally {
      signal?.removeEventListener("abort", onAbort);
      this.pending.delete(id);
      if (this.pending.size === 0) this.keepAlive(false);
    }
  }

  async close(): Promise<void> {
    this.isClosing = true;
    if (this.hasExited) return;
    this.post({ kind: "close" });
    for (const call of this.pending.values()) call.reject(closedError());
    this.pending.clear();
    this.keepAlive(true);
    await this.exited;
  }

  private receive(message: FromSearch): void {
    const call = this.pending.get(message.id);
    if (!call) return;
    const { onProgress, onProblem, onMessage } = call.callbacks;
    try {
      if (message.kind === "progress") onProgress?.(message.done, message.total);
      else if (message.kind === "problem") onProblem?.(message.problem);
      else if (message.kind === "message") onMessage?.(message.text);
      else if (message.kind === "result") call.resolve(message.result);
      else call.reject(fromErrorMessage(message.error));
    } catch (error) {
      // A callback has thrown: the call fails with its error.
      this.post({ kind: "cancel", id: message.id });
      call.reject(error);
    }
  }

  /** Messages to a process that has exited are dropped; its exit is reported on its own. */
  private post(message: ToSearch): void {
    this.child.send(message, () => {});
  }

  /** Whether the calling process stays alive for this one. */
  private keepAlive(value: boolean): void {
    for (const handle of [this.child, this.child.channel]) value ? handle?.ref() : handle?.unref();
  }
}

function closedError(): Error {
  return new Error("The image search is closed. Open it again with ImageSearch.open().");
}

function forkSearch(): ChildProcess {
  const isBuilt = import.meta.url.endsWith(".js");
  const file = new URL(isBuilt ? "./search-process.js" : "./search-process.ts", import.meta.url);
  return fork(fileURLToPath(file), {
    env: withLargePages(process.env),
    // The sources run through a loader. Flags of the calling process are not inherited.
    execArgv: isBuilt ? [] : ["--import", import.meta.resolve("tsx")],
    // Structured clone, so that typed arrays stay typed arrays.
    serialization: "advanced",
    // Standard output belongs to the calling process.
    stdio: ["ignore", 2, 2, "ipc"],
  });
}
