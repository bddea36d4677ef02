/** The state that the components of the chat share, and the actions of the user. */
import { createContext } from "preact";
import { useContext } from "preact/hooks";
import { type Backend, BackendError, type LoadProgress, type ModelInfo } from "../backend/backend.ts";
import { announce, toast } from "../shell/notifications.tsx";
import { getStrings } from "../shell/preferences.ts";
import { navigate, route } from "../shell/router.ts";
import { Store } from "../shell/store.ts";
import { addQuestion, type Chat, editQuestion, newChat, resetLastAnswer } from "./chat.ts";
import { Draft } from "./draft.ts";
import { Generations } from "./generations.ts";
import { Library, syncTabs } from "./library.ts";
import { generationOptions, isSampling, type Settings, settings } from "./settings.ts";
import { IndexedDBStorage, MemoryStorage } from "./storage.ts";
import { chatStrings } from "./strings.ts";

export type Connection =
  /** `progress`: while a model is downloaded into this browser. */
  | { readonly kind: "connecting"; readonly progress?: LoadProgress }
  | { readonly kind: "ready"; readonly model: ModelInfo }
  | { readonly kind: "problem"; readonly problem: BackendError };

export type OpenDialog = "settings" | "help" | "key";

const reconnectDelayMs = 4000;

export class ChatApp {
  readonly connection = new Store<Connection>({ kind: "connecting" });
  readonly dialog = new Store<OpenDialog | undefined>(undefined);
  readonly draft = new Draft();
  readonly library: Library;
  readonly generations: Generations;
  readonly #backend: Backend;
  readonly #urls = new Map<string, Promise<string>>();
  #reconnect: ReturnType<typeof setTimeout> | undefined;

  constructor(library: Library, backend: Backend) {
    this.library = library;
    this.#backend = backend;
    this.generations = new Generations(library, backend);
  }

  static async open(backend: Backend): Promise<ChatApp> {
    const onSaveError = () => toast(getStrings(chatStrings).notSaved);
    const storage = await IndexedDBStorage.open().catch(() => {
      onSaveError();
      return new MemoryStorage();
    });
    const library = new Library(storage, onSaveError);
    await library.open();
    syncTabs(library);
    const app = new ChatApp(library, backend);
    addEventListener("pagehide", () => library.save());
    app.connect();
    return app;
  }

  /** Connects to the backend; retries until it responds. */
  async connect(): Promise<void> {
    clearTimeout(this.#reconnect);
    try {
      const onProgress = (progress: LoadProgress) => this.connection.set({ kind: "connecting", progress });
      this.connection.set({ kind: "ready", model: await this.#backend.info(undefined, onProgress) });
    } catch (error) {
      const problem = error instanceof BackendError ? error : new BackendError("failed", String(error));
      this.connection.set({ kind: "problem", problem });
      if (problem.kind === "key") this.dialog.set("key");
      else if (problem.kind !== "unable") this.#reconnect = setTimeout(() => this.connect(), reconnectDelayMs);
    }
  }

  /** Sends the draft in the open chat, or in a new one. */
  async send(): Promise<void> {
    const { text, images } = this.draft.state.value;
    if (text.trim() === "" && images.length === 0) return;
    const current = this.#openChat() ?? newChat();
    if (this.generations.progress.value.has(current.id)) return;
    const t = getStrings(chatStrings);
    // A single image without text at the start is described with the prompt of the training; otherwise a prompt is needed.
    const defaultText = images.length === 1 && current.messages.length === 0 ? "" : defaultPrompt(images.length, t);
    const refs = images.map(({ blob: _, ...ref }) => ref);
    const chat = addQuestion(current, text.trim() || defaultText, refs);
    this.draft.clear();
    await this.library.put(chat, new Map(images.map(({ id, blob }) => [id, blob])));
    if (current.messages.length === 0) navigate({ page: "chat", id: chat.id });
    await this.#generate(chat);
  }

  /** Asks the model to continue an answer that ended early. */
  async continueAnswer(chat: Chat): Promise<void> {
    const longer = addQuestion(chat, getStrings(chatStrings).continueQuestion, []);
    await this.library.put(longer);
    await this.#generate(longer);
  }

  /** Generates the last answer again. */
  async regenerate(chat: Chat): Promise<void> {
    const last = chat.messages.at(-1);
    const complete = last?.role === "assistant" && (last.end === "stop" || last.end === "length");
    if (complete && !isSampling(settings.value)) {
      const t = getStrings(chatStrings);
      toast(t.sameAgain, { name: t.settingsLink, run: () => this.dialog.set("settings") });
    }
    const emptied = resetLastAnswer(chat);
    await this.library.put(emptied);
    await this.#generate(emptied);
  }

  /** Replaces the text of a question, and generates its answer. */
  async edit(chat: Chat, messageId: string, text: string): Promise<void> {
    this.generations.stop(chat.id);
    const edited = editQuestion(chat, messageId, text);
    await this.library.put(edited);
    await this.#generate(edited);
  }

  /** Removes a chat, and offers to undo it. */
  async remove(chat: Chat): Promise<void> {
    this.generations.stop(chat.id);
    const wasOpen = this.#openId() === chat.id;
    if (wasOpen) navigate({ page: "chat" }, { replace: true });
    const restore = await this.library.remove(chat.id);
    const undo = async () => {
      await restore();
      if (wasOpen) navigate({ page: "chat", id: chat.id }, { replace: true });
    };
    const t = getStrings(chatStrings);
    toast(t.removed, { name: t.undo, run: undo }, () => this.library.deleteUnusedImages());
  }

  /** Removes all chats and images. */
  async clear(): Promise<void> {
    for (const id of this.generations.progress.value.keys()) this.generations.stop(id);
    navigate({ page: "chat" }, { replace: true });
    await this.library.clear();
    for (const url of this.#urls.values()) url.then(URL.revokeObjectURL, () => {});
    this.#urls.clear();
  }

  /** An object URL for an image of a chat or of the draft. */
  imageUrl(id: string): Promise<string> {
    let url = this.#urls.get(id);
    if (!url) {
      const drafted = this.draft.state.value.images.find((image) => image.id === id);
      const bytes = drafted ? Promise.resolve(drafted.blob) : this.library.image(id);
      url = bytes.then((blob) => URL.createObjectURL(blob));
      this.#urls.set(id, url);
      // An undo may restore the image.
      url.catch(() => this.#urls.delete(id));
    }
    return url;
  }

  async #generate(chat: Chat): Promise<void> {
    const t = getStrings(chatStrings);
    announce(t.answering);
    const system = settings.value.system.trim();
    const answer = await this.generations.run(chat.id, {
      options: generationOptions(this.#fittingSettings()),
      system: system || undefined,
    });
    if (!answer) return;
    if (answer.end === "problem" && answer.problem) {
      announce(t.problems[answer.problem.kind]);
      if (answer.problem.kind === "key") this.dialog.set("key");
      if (answer.problem.kind === "away") this.connect();
    } else announce(answer.end === "stopped" ? t.stopped : t.answered(answer.text));
  }

  /** The settings with the answer limited to half of the context, so that the prompt fits. */
  #fittingSettings(): Settings {
    const connection = this.connection.value;
    const context = connection.kind === "ready" ? connection.model.contextLength : undefined;
    const { maxNewTokens } = settings.value;
    if (context === undefined || maxNewTokens <= context / 2) return settings.value;
    return { ...settings.value, maxNewTokens: Math.floor(context / 2) };
  }

  #openId(): string | undefined {
    return route.value.page === "chat" ? route.value.id : undefined;
  }

  #openChat(): Chat | undefined {
    const id = this.#openId();
    return id === undefined ? undefined : this.library.get(id);
  }
}

function defaultPrompt(images: number, t: { describeThis: string; describeThese: string }): string {
  return images === 1 ? t.describeThis : t.describeThese;
}

const ChatAppContext = createContext<ChatApp | undefined>(undefined);
export const ChatAppProvider = ChatAppContext.Provider;

/** The chat app of the surrounding provider. @throws Error outside of one */
export function useChatApp(): ChatApp {
  const app = useContext(ChatAppContext);
  if (!app) throw new Error("useChatApp must be called below ChatAppProvider");
  return app;
}
