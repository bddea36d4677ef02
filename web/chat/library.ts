/** All chats of the page: in memory to be shown, and kept in the storage. */
import { Store } from "../shell/store.ts";
import { type Chat, settle } from "./chat.ts";
import type { ChatStorage } from "./storage.ts";

/** While an answer is written, a chat is kept at most this often. */
const saveEvery = 500;

export class Library {
  /** The chats, the one that was used last first. */
  readonly chats = new Store<readonly Chat[]>([]);
  readonly #storage: ChatStorage;
  readonly #unsaved = new Map<string, Chat>();
  /** Images that are still being kept, or could not be. */
  readonly #held = new Map<string, Blob>();
  #timer: ReturnType<typeof setTimeout> | undefined;
  /** Told when something could not be kept. */
  readonly #lost: (problem: unknown) => void;

  /** Told which chat was kept or removed. */
  kept: (id: string) => void = () => {};

  constructor(storage: ChatStorage, lost: (problem: unknown) => void = () => {}) {
    this.#storage = storage;
    this.#lost = lost;
  }

  /** Reads the chats of earlier visits, and removes images that nobody shows. */
  async open(): Promise<void> {
    this.chats.set(byUse((await this.#storage.chats()).map(settle)));
    await this.#storage.sweep();
  }

  get(id: string): Chat | undefined {
    return this.chats.value.find((chat) => chat.id === id);
  }

  /** Adds a chat, or puts it in the place of the one with its id; done when it is kept. */
  async put(chat: Chat, images: ReadonlyMap<string, Blob> = new Map()): Promise<void> {
    this.#show(chat);
    this.#unsaved.delete(chat.id);
    for (const [id, blob] of images) this.#held.set(id, blob);
    await this.#storage.save(chat, images).then(() => {
      for (const id of images.keys()) this.#held.delete(id);
      this.kept(chat.id);
    }, this.#lost);
  }

  /** Changes a chat now, and keeps it a little later. */
  change(id: string, edit: (chat: Chat) => Chat): void {
    const before = this.get(id);
    if (!before) return;
    const after = edit(before);
    if (after === before) return;
    this.#show(after);
    this.#unsaved.set(id, after);
    this.#timer ??= setTimeout(() => this.save(), saveEvery);
  }

  /** Keeps now what was changed. */
  async save(): Promise<void> {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const chats = [...this.#unsaved.values()];
    this.#unsaved.clear();
    await Promise.all(chats.map((chat) => this.#storage.save(chat).then(() => this.kept(chat.id), this.#lost)));
  }

  /** Removes a chat; the returned function brings it back, until `sweep`. */
  async remove(id: string): Promise<() => Promise<void>> {
    const chat = this.get(id);
    this.chats.update((chats) => chats.filter((one) => one.id !== id));
    this.#unsaved.delete(id);
    await this.#storage.remove(id).then(() => this.kept(id), this.#lost);
    return async () => {
      if (chat) await this.put(chat);
    };
  }

  /** Removes for good the images of removed chats. */
  async sweep(): Promise<void> {
    await this.#storage.sweep().catch(this.#lost);
  }

  /** Removes everything, at once and for good. */
  async clear(): Promise<void> {
    this.#unsaved.clear();
    this.#held.clear();
    const removed = this.chats.value;
    this.chats.set([]);
    await this.#storage.clear().catch(this.#lost);
    for (const { id } of removed) this.kept(id);
  }

  /** Shows a chat as another tab has left it. */
  async reread(id: string): Promise<void> {
    const chat = await this.#storage.chat(id);
    if (chat) this.#show(chat);
    else this.chats.update((chats) => chats.filter((one) => one.id !== id));
  }

  /** The bytes of an image. @throws Error if they are lost */
  async image(id: string): Promise<Blob> {
    const blob = this.#held.get(id) ?? (await this.#storage.image(id));
    if (!blob) throw new Error("The image is no longer in this browser's storage");
    return blob;
  }

  #show(chat: Chat): void {
    this.chats.update((chats) => byUse([chat, ...chats.filter((one) => one.id !== chat.id)]));
  }
}

function byUse(chats: readonly Chat[]): readonly Chat[] {
  return chats.toSorted((a, b) => b.updated - a.updated);
}
