/** All chats of the page: in memory for display, saved to the storage, and synced between tabs. */
import { Store } from "../shell/store.ts";
import { type Chat, markStopped } from "./chat.ts";
import type { ChatStorage } from "./storage.ts";

/** While an answer is generated, its chat is saved at most this often. */
const saveIntervalMs = 500;

export class Library {
  /** The most recently updated chat first. */
  readonly chats = new Store<readonly Chat[]>([]);
  /** Called with the id of a chat that was saved or removed. */
  onSaved: (id: string) => void = () => {};
  readonly #storage: ChatStorage;
  readonly #onSaveError: (error: unknown) => void;
  readonly #unsaved = new Map<string, Chat>();
  /** Images that are not saved yet, or could not be. */
  readonly #unsavedImages = new Map<string, Blob>();
  #timer: ReturnType<typeof setTimeout> | undefined;

  /** @param onSaveError called when the storage fails; the chat stays in memory */
  constructor(storage: ChatStorage, onSaveError: (error: unknown) => void = () => {}) {
    this.#storage = storage;
    this.#onSaveError = onSaveError;
  }

  /** Loads the chats of earlier visits, and deletes images that no chat uses. */
  async open(): Promise<void> {
    this.chats.set(sortByUpdated((await this.#storage.chats()).map(markStopped)));
    await this.#storage.deleteUnusedImages();
  }

  get(id: string): Chat | undefined {
    return this.chats.value.find((chat) => chat.id === id);
  }

  /** Adds or replaces a chat, and saves it. */
  async put(chat: Chat, images: ReadonlyMap<string, Blob> = new Map()): Promise<void> {
    this.#show(chat);
    this.#unsaved.delete(chat.id);
    for (const [id, blob] of images) this.#unsavedImages.set(id, blob);
    await this.#storage.save(chat, images).then(() => {
      for (const id of images.keys()) this.#unsavedImages.delete(id);
      this.onSaved(chat.id);
    }, this.#onSaveError);
  }

  /** Changes a chat in memory immediately, and saves it a little later. */
  update(id: string, edit: (chat: Chat) => Chat): void {
    const before = this.get(id);
    if (!before) return;
    const after = edit(before);
    if (after === before) return;
    this.#show(after);
    this.#unsaved.set(id, after);
    this.#timer ??= setTimeout(() => this.save(), saveIntervalMs);
  }

  /** Saves pending changes now. */
  async save(): Promise<void> {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const chats = [...this.#unsaved.values()];
    this.#unsaved.clear();
    await Promise.all(
      chats.map((chat) => this.#storage.save(chat).then(() => this.onSaved(chat.id), this.#onSaveError)),
    );
  }

  /** Removes a chat. @returns a function that restores it; its images last until `deleteUnusedImages` */
  async remove(id: string): Promise<() => Promise<void>> {
    const removed = this.get(id);
    this.chats.update((chats) => chats.filter((chat) => chat.id !== id));
    this.#unsaved.delete(id);
    await this.#storage.remove(id).then(() => this.onSaved(id), this.#onSaveError);
    return async () => {
      if (removed) await this.put(removed);
    };
  }

  /** Deletes the images of removed chats. */
  async deleteUnusedImages(): Promise<void> {
    await this.#storage.deleteUnusedImages().catch(this.#onSaveError);
  }

  /** Removes all chats and images; this cannot be undone. */
  async clear(): Promise<void> {
    this.#unsaved.clear();
    this.#unsavedImages.clear();
    const removed = this.chats.value;
    this.chats.set([]);
    await this.#storage.clear().catch(this.#onSaveError);
    for (const { id } of removed) this.onSaved(id);
  }

  /** Reads a chat again after another tab has changed it. */
  async reload(id: string): Promise<void> {
    const chat = await this.#storage.chat(id);
    if (chat) this.#show(chat);
    else this.chats.update((chats) => chats.filter((other) => other.id !== id));
  }

  /** The bytes of an image. @throws Error if they are not stored */
  async image(id: string): Promise<Blob> {
    const blob = this.#unsavedImages.get(id) ?? (await this.#storage.image(id));
    if (!blob) throw new Error("The image is no longer in this browser's storage");
    return blob;
  }

  #show(chat: Chat): void {
    this.chats.update((chats) => sortByUpdated([chat, ...chats.filter(({ id }) => id !== chat.id)]));
  }
}

/** Keeps the libraries of all open tabs in sync. */
export function syncTabs(library: Library): void {
  if (typeof BroadcastChannel === "undefined") return;
  const channel = new BroadcastChannel("minigpt4-chats");
  library.onSaved = (id) => channel.postMessage(id);
  channel.onmessage = ({ data }: MessageEvent<Chat["id"]>) => library.reload(data);
}

function sortByUpdated(chats: readonly Chat[]): readonly Chat[] {
  return chats.toSorted((a, b) => b.updated - a.updated);
}
