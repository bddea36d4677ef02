/** Everything that the parts of the chat share: what is kept, who answers, and what the user can do. */
import { createContext } from "preact";
import { useContext } from "preact/hooks";
import { type Backend, BackendError, type LoadProgress, type ModelInfo } from "../backend/backend.ts";
import { announce } from "../shell/announcer.tsx";
import { words } from "../shell/language.ts";
import { go, route } from "../shell/router.ts";
import { Store } from "../shell/store.ts";
import { toast } from "../shell/toasts.tsx";
import { Answering } from "./answering.ts";
import { ask, askAgain, type Chat, editQuestion, newChat } from "./chat.ts";
import { Draft } from "./draft.ts";
import { Library } from "./library.ts";
import { decodingOf, draws, type Settings, settings } from "./settings.ts";
import { IndexedChats, MemoryChats } from "./storage.ts";
import { shareChanges } from "./tabs.ts";
import { chatWords } from "./words.ts";

/** Where we stand with whoever answers. */
export type Connection =
  /** `progress`: of a model that is being loaded into this browser. */
  | { readonly kind: "connecting"; readonly progress?: LoadProgress }
  | { readonly kind: "ready"; readonly model: ModelInfo }
  | { readonly kind: "problem"; readonly problem: BackendError };

/** Which dialog is open. */
export type OpenDialog = "settings" | "help" | "key";

const reconnectAfter = 4000;

export class ChatApp {
  readonly connection = new Store<Connection>({ kind: "connecting" });
  readonly dialog = new Store<OpenDialog | undefined>(undefined);
  readonly draft = new Draft();
  readonly library: Library;
  readonly answering: Answering;
  readonly #backend: Backend;
  readonly #urls = new Map<string, Promise<string>>();
  #reconnect: ReturnType<typeof setTimeout> | undefined;

  constructor(library: Library, backend: Backend) {
    this.library = library;
    this.#backend = backend;
    this.answering = new Answering(library, backend);
  }

  static async open(backend: Backend): Promise<ChatApp> {
    const lost = () => toast(words(chatWords).notKept);
    const storage = await IndexedChats.open().catch(() => {
      lost();
      return new MemoryChats();
    });
    const library = new Library(storage, lost);
    await library.open();
    shareChanges(library);
    const app = new ChatApp(library, backend);
    addEventListener("pagehide", () => library.save());
    app.connect();
    return app;
  }

  /** Asks who answers; tries again by itself while nobody does. */
  async connect(): Promise<void> {
    clearTimeout(this.#reconnect);
    try {
      const onProgress = (progress: LoadProgress) => this.connection.set({ kind: "connecting", progress });
      this.connection.set({ kind: "ready", model: await this.#backend.info(undefined, onProgress) });
    } catch (cause) {
      const problem = cause instanceof BackendError ? cause : new BackendError("failed", String(cause));
      this.connection.set({ kind: "problem", problem });
      if (problem.kind === "key") this.dialog.set("key");
      else if (problem.kind !== "unable") this.#reconnect = setTimeout(() => this.connect(), reconnectAfter);
    }
  }

  /** Sends the draft in the open chat, or in a new one. */
  async send(): Promise<void> {
    const { text, images } = this.draft.state.value;
    if (text.trim() === "" && images.length === 0) return;
    const here = this.#openChat() ?? newChat();
    if (this.answering.progress.value.has(here.id)) return;
    const t = words(chatWords);
    // One image without words at the beginning is described in the way that the model was trained for; later, words are needed.
    const wordless = images.length === 1 && here.messages.length === 0 ? "" : wordsFor(images.length, t);
    const refs = images.map(({ blob: _, ...ref }) => ref);
    const chat = ask(here, text.trim() || wordless, refs);
    this.draft.clear();
    await this.library.put(chat, new Map(images.map(({ id, blob }) => [id, blob])));
    if (here.messages.length === 0) go({ page: "chat", id: chat.id });
    await this.#answer(chat);
  }

  /** Asks to go on with an answer that has ended too early. */
  async goOn(chat: Chat): Promise<void> {
    const longer = ask(chat, words(chatWords).continueQuestion, []);
    await this.library.put(longer);
    await this.#answer(longer);
  }

  /** Has the last question answered again. */
  async again(chat: Chat): Promise<void> {
    const last = chat.messages.at(-1);
    const complete = last?.role === "assistant" && (last.end === "stop" || last.end === "length");
    if (complete && !draws(settings.value)) {
      const t = words(chatWords);
      toast(t.sameAgain, { name: t.raise, run: () => this.dialog.set("settings") });
    }
    const emptied = askAgain(chat);
    await this.library.put(emptied);
    await this.#answer(emptied);
  }

  async edit(chat: Chat, messageId: string, text: string): Promise<void> {
    this.answering.stop(chat.id);
    const edited = editQuestion(chat, messageId, text);
    await this.library.put(edited);
    await this.#answer(edited);
  }

  /** Removes a chat, and offers to bring it back. */
  async remove(chat: Chat): Promise<void> {
    this.answering.stop(chat.id);
    const wasOpen = this.#openId() === chat.id;
    if (wasOpen) go({ page: "chat" }, { replace: true });
    const bringBack = await this.library.remove(chat.id);
    const undo = async () => {
      await bringBack();
      if (wasOpen) go({ page: "chat", id: chat.id }, { replace: true });
    };
    const t = words(chatWords);
    toast(t.removed, { name: t.undo, run: undo }, () => this.library.sweep());
  }

  /** Removes all chats and images. */
  async clear(): Promise<void> {
    for (const id of this.answering.progress.value.keys()) this.answering.stop(id);
    go({ page: "chat" }, { replace: true });
    await this.library.clear();
    for (const url of this.#urls.values()) url.then(URL.revokeObjectURL, () => {});
    this.#urls.clear();
  }

  /** An address at which an image of a chat or of the draft can be shown. */
  imageUrl(id: string): Promise<string> {
    let url = this.#urls.get(id);
    if (!url) {
      const drafted = this.draft.state.value.images.find((image) => image.id === id);
      const bytes = drafted ? Promise.resolve(drafted.blob) : this.library.image(id);
      url = bytes.then((blob) => URL.createObjectURL(blob));
      this.#urls.set(id, url);
      // What could not be read may come back with an undo.
      url.catch(() => this.#urls.delete(id));
    }
    return url;
  }

  async #answer(chat: Chat): Promise<void> {
    const t = words(chatWords);
    announce(t.answering);
    const system = settings.value.system.trim();
    const answer = await this.answering.answer(chat.id, {
      decoding: decodingOf(this.#fittingSettings()),
      ...(system !== "" && { system }),
    });
    if (!answer) return;
    if (answer.end === "problem" && answer.problem) {
      announce(t.problems[answer.problem.kind]);
      if (answer.problem.kind === "key") this.dialog.set("key");
      if (answer.problem.kind === "away") this.connect();
    } else announce(answer.end === "stopped" ? t.stopped : t.answered(answer.text));
  }

  /** The settings, with an answer that leaves the question half of what the model can hold. */
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

function wordsFor(images: number, t: { describeThis: string; describeThese: string }): string {
  return images === 1 ? t.describeThis : t.describeThese;
}

const ChatAppContext = createContext<ChatApp | undefined>(undefined);
export const ChatAppProvider = ChatAppContext.Provider;

/** The app around a component. */
export function useChatApp(): ChatApp {
  const app = useContext(ChatAppContext);
  if (!app) throw new Error("A part of the chat is drawn outside of ChatAppProvider");
  return app;
}
