/** Where chats and their pictures are kept: IndexedDB, or memory where the browser forbids it. */
import { type DBSchema, type IDBPDatabase, openDB } from "idb";
import { type Chat, picturesOf } from "./chat.ts";

export interface ChatStorage {
  /** All chats, in no order. */
  chats(): Promise<Chat[]>;
  chat(id: string): Promise<Chat | undefined>;
  /** Keeps a chat, and pictures that are new in it, together. */
  save(chat: Chat, pictures?: ReadonlyMap<string, Blob>): Promise<void>;
  /** Removes a chat. Its pictures stay until `sweep`, so that it can come back. */
  remove(id: string): Promise<void>;
  picture(id: string): Promise<Blob | undefined>;
  /** Removes the pictures that no chat shows. */
  sweep(): Promise<void>;
  clear(): Promise<void>;
}

interface Schema extends DBSchema {
  chats: { key: string; value: Chat };
  pictures: { key: string; value: Blob };
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
        fresh.createObjectStore("pictures");
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

  async save(chat: Chat, pictures: ReadonlyMap<string, Blob> = new Map()): Promise<void> {
    const change = this.#db.transaction(["chats", "pictures"], "readwrite");
    await Promise.all([
      change.objectStore("chats").put(chat),
      ...[...pictures].map(([id, blob]) => change.objectStore("pictures").put(blob, id)),
      change.done,
    ]);
  }

  remove(id: string): Promise<void> {
    return this.#db.delete("chats", id);
  }

  picture(id: string): Promise<Blob | undefined> {
    return this.#db.get("pictures", id);
  }

  async sweep(): Promise<void> {
    const change = this.#db.transaction(["chats", "pictures"], "readwrite");
    const shown = shownPictures(await change.objectStore("chats").getAll());
    const keys = await change.objectStore("pictures").getAllKeys();
    const removed = keys.filter((id) => !shown.has(id)).map((id) => change.objectStore("pictures").delete(id));
    await Promise.all([...removed, change.done]);
  }

  async clear(): Promise<void> {
    const change = this.#db.transaction(["chats", "pictures"], "readwrite");
    await Promise.all([change.objectStore("chats").clear(), change.objectStore("pictures").clear(), change.done]);
  }
}

/** Chats that last as long as the page. */
export class MemoryChats implements ChatStorage {
  readonly #chats = new Map<string, Chat>();
  readonly #pictures = new Map<string, Blob>();

  async chats(): Promise<Chat[]> {
    return [...this.#chats.values()];
  }

  async chat(id: string): Promise<Chat | undefined> {
    return this.#chats.get(id);
  }

  async save(chat: Chat, pictures: ReadonlyMap<string, Blob> = new Map()): Promise<void> {
    this.#chats.set(chat.id, chat);
    for (const [id, blob] of pictures) this.#pictures.set(id, blob);
  }

  async remove(id: string): Promise<void> {
    this.#chats.delete(id);
  }

  async picture(id: string): Promise<Blob | undefined> {
    return this.#pictures.get(id);
  }

  async sweep(): Promise<void> {
    const shown = shownPictures([...this.#chats.values()]);
    for (const id of this.#pictures.keys()) if (!shown.has(id)) this.#pictures.delete(id);
  }

  async clear(): Promise<void> {
    this.#chats.clear();
    this.#pictures.clear();
  }
}

function shownPictures(chats: readonly Chat[]): Set<string> {
  return new Set(chats.flatMap((chat) => picturesOf(chat).map(({ id }) => id)));
}
