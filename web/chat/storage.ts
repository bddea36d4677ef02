/** Where chats and their images are kept: IndexedDB, or memory where the browser forbids it. */
import { type DBSchema, type IDBPDatabase, openDB } from "idb";
import { type Chat, imagesOf } from "./chat.ts";

export interface ChatStorage {
  /** All chats, in no order. */
  chats(): Promise<Chat[]>;
  chat(id: string): Promise<Chat | undefined>;
  /** Keeps a chat, and images that are new in it, together. */
  save(chat: Chat, images?: ReadonlyMap<string, Blob>): Promise<void>;
  /** Removes a chat. Its images stay until `sweep`, so that it can come back. */
  remove(id: string): Promise<void>;
  image(id: string): Promise<Blob | undefined>;
  /** Removes the images that no chat shows. */
  sweep(): Promise<void>;
  clear(): Promise<void>;
}

interface Schema extends DBSchema {
  chats: { key: string; value: Chat };
  images: { key: string; value: Blob };
}

export class IndexedChats implements ChatStorage {
  readonly #db: IDBPDatabase<Schema>;

  private constructor(db: IDBPDatabase<Schema>) {
    this.#db = db;
  }

  /** @throws if the browser gives no database */
  static async open(name = "minigpt4"): Promise<IndexedChats> {
    const db = await openDB<Schema>(name, 1, {
      upgrade(fresh) {
        fresh.createObjectStore("chats", { keyPath: "id" });
        fresh.createObjectStore("images");
      },
      blocking: () => db.close(),
    });
    return new IndexedChats(db);
  }

  chats(): Promise<Chat[]> {
    return this.#db.getAll("chats");
  }

  chat(id: string): Promise<Chat | undefined> {
    return this.#db.get("chats", id);
  }

  async save(chat: Chat, images: ReadonlyMap<string, Blob> = new Map()): Promise<void> {
    const change = this.#db.transaction(["chats", "images"], "readwrite");
    await Promise.all([
      change.objectStore("chats").put(chat),
      ...[...images].map(([id, blob]) => change.objectStore("images").put(blob, id)),
      change.done,
    ]);
  }

  remove(id: string): Promise<void> {
    return this.#db.delete("chats", id);
  }

  image(id: string): Promise<Blob | undefined> {
    return this.#db.get("images", id);
  }

  async sweep(): Promise<void> {
    const change = this.#db.transaction(["chats", "images"], "readwrite");
    const shown = shownImages(await change.objectStore("chats").getAll());
    const keys = await change.objectStore("images").getAllKeys();
    const removed = keys.filter((id) => !shown.has(id)).map((id) => change.objectStore("images").delete(id));
    await Promise.all([...removed, change.done]);
  }

  async clear(): Promise<void> {
    const change = this.#db.transaction(["chats", "images"], "readwrite");
    await Promise.all([change.objectStore("chats").clear(), change.objectStore("images").clear(), change.done]);
  }
}

/** Chats that last as long as the page. */
export class MemoryChats implements ChatStorage {
  readonly #chats = new Map<string, Chat>();
  readonly #images = new Map<string, Blob>();

  async chats(): Promise<Chat[]> {
    return [...this.#chats.values()];
  }

  async chat(id: string): Promise<Chat | undefined> {
    return this.#chats.get(id);
  }

  async save(chat: Chat, images: ReadonlyMap<string, Blob> = new Map()): Promise<void> {
    this.#chats.set(chat.id, chat);
    for (const [id, blob] of images) this.#images.set(id, blob);
  }

  async remove(id: string): Promise<void> {
    this.#chats.delete(id);
  }

  async image(id: string): Promise<Blob | undefined> {
    return this.#images.get(id);
  }

  async sweep(): Promise<void> {
    const shown = shownImages([...this.#chats.values()]);
    for (const id of this.#images.keys()) if (!shown.has(id)) this.#images.delete(id);
  }

  async clear(): Promise<void> {
    this.#chats.clear();
    this.#images.clear();
  }
}

function shownImages(chats: readonly Chat[]): Set<string> {
  return new Set(chats.flatMap((chat) => imagesOf(chat).map(({ id }) => id)));
}
