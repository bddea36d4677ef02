/** Saves chats and their images in IndexedDB, or in memory where the browser forbids it. */
import { type DBSchema, type IDBPDatabase, openDB } from "idb";
import { type Chat, chatImages, type Message } from "./chat.ts";

export interface ChatStorage {
  /** All chats, in no particular order. */
  chats(): Promise<Chat[]>;
  chat(id: string): Promise<Chat | undefined>;
  /** Saves a chat and its new images in one transaction. */
  save(chat: Chat, images?: ReadonlyMap<string, Blob>): Promise<void>;
  /** Removes a chat. Its images stay until `deleteUnusedImages`, so that it can be restored. */
  remove(id: string): Promise<void>;
  image(id: string): Promise<Blob | undefined>;
  /** Deletes the images that no chat uses. */
  deleteUnusedImages(): Promise<void>;
  clear(): Promise<void>;
}

interface Schema extends DBSchema {
  chats: { key: string; value: Chat };
  images: { key: string; value: Blob };
}

export class IndexedDBStorage implements ChatStorage {
  readonly #db: IDBPDatabase<Schema>;

  private constructor(db: IDBPDatabase<Schema>) {
    this.#db = db;
  }

  /** Opens the database, and migrates one of an earlier version. @throws if the browser does not provide IndexedDB */
  static async open(name = "minigpt4"): Promise<IndexedDBStorage> {
    const db = await openDB<Schema>(name, 2, {
      async upgrade(db, oldVersion, _, transaction) {
        if (oldVersion === 0) {
          db.createObjectStore("chats", { keyPath: "id" });
          db.createObjectStore("images");
          return;
        }
        // Version 1 had a store "pictures", and chats with fields of that name.
        const names: DOMStringList = db.objectStoreNames;
        if (names.contains("pictures")) transaction.objectStore("pictures" as "images").name = "images";
        const chats = transaction.objectStore("chats");
        for (const chat of await chats.getAll()) await chats.put(migrateChat(chat));
      },
      blocking: () => db.close(),
    });
    return new IndexedDBStorage(db);
  }

  chats(): Promise<Chat[]> {
    return this.#db.getAll("chats");
  }

  chat(id: string): Promise<Chat | undefined> {
    return this.#db.get("chats", id);
  }

  async save(chat: Chat, images: ReadonlyMap<string, Blob> = new Map()): Promise<void> {
    const transaction = this.#db.transaction(["chats", "images"], "readwrite");
    await Promise.all([
      transaction.objectStore("chats").put(chat),
      ...[...images].map(([id, blob]) => transaction.objectStore("images").put(blob, id)),
      transaction.done,
    ]);
  }

  remove(id: string): Promise<void> {
    return this.#db.delete("chats", id);
  }

  image(id: string): Promise<Blob | undefined> {
    return this.#db.get("images", id);
  }

  async deleteUnusedImages(): Promise<void> {
    const transaction = this.#db.transaction(["chats", "images"], "readwrite");
    const used = usedImages(await transaction.objectStore("chats").getAll());
    const ids = await transaction.objectStore("images").getAllKeys();
    const deleted = ids.filter((id) => !used.has(id)).map((id) => transaction.objectStore("images").delete(id));
    await Promise.all([...deleted, transaction.done]);
  }

  async clear(): Promise<void> {
    const transaction = this.#db.transaction(["chats", "images"], "readwrite");
    await Promise.all([
      transaction.objectStore("chats").clear(),
      transaction.objectStore("images").clear(),
      transaction.done,
    ]);
  }
}

/** Chats that last as long as the page. */
export class MemoryStorage implements ChatStorage {
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

  async deleteUnusedImages(): Promise<void> {
    const used = usedImages([...this.#chats.values()]);
    for (const id of this.#images.keys()) if (!used.has(id)) this.#images.delete(id);
  }

  async clear(): Promise<void> {
    this.#chats.clear();
    this.#images.clear();
  }
}

/** Converts a chat saved by version 1, which called images "pictures"; returns a current chat unchanged. */
export function migrateChat(chat: Chat): Chat {
  return { ...chat, messages: chat.messages.map(migrateMessage) };
}

function migrateMessage(message: Message & { pictures?: unknown }): Message {
  if (message.role === "user") {
    if (!("pictures" in message)) return message;
    const { pictures, ...rest } = message;
    return { ...rest, images: pictures } as Message;
  }
  if ((message.problem?.kind as string) !== "picture") return message;
  return { ...message, problem: { kind: "image", message: message.problem?.message ?? "" } };
}

function usedImages(chats: readonly Chat[]): Set<string> {
  return new Set(chats.flatMap((chat) => chatImages(chat).map(({ id }) => id)));
}
