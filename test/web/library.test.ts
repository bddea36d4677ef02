/** The library: chats in memory and in the storage. */
import { expect, test } from "vitest";
import { addQuestion, newChat, rename, updateAnswer } from "../../web/chat/chat.ts";
import { Library } from "../../web/chat/library.ts";
import { MemoryStorage } from "../../web/chat/storage.ts";

const image = { id: "p", name: "cat.jpg", width: 1, height: 1 };
const blobs = new Map([["p", new Blob(["cat"])]]);

test("the most recently updated chat comes first, also after reopening", async () => {
  const storage = new MemoryStorage();
  const library = new Library(storage);
  const [old, young] = [newChat(1000), newChat(2000)];
  await library.put(young);
  await library.put(old);
  expect(library.chats.value.map(({ id }) => id)).toEqual([young.id, old.id]);
  await library.put(addQuestion(old, "more", [], 3000));
  const again = new Library(storage);
  await again.open();
  expect(again.chats.value.map(({ id }) => id)).toEqual([old.id, young.id]);
  expect(again.get(old.id)?.messages.at(-1)).toMatchObject({ role: "assistant", end: "stopped" });
});

test("changes show immediately and are saved a little later", async () => {
  const storage = new MemoryStorage();
  const library = new Library(storage);
  const chat = addQuestion(newChat(), "a", []);
  await library.put(chat);
  library.update(chat.id, (now) => updateAnswer(now, (answer) => ({ ...answer, text: "b" })));
  library.update(chat.id, (now) => rename(now, "Mine"));
  expect(library.get(chat.id)).toMatchObject({ title: "Mine" });
  expect(await storage.chat(chat.id)).not.toHaveProperty("title");
  await library.save();
  expect(await storage.chat(chat.id)).toMatchObject({ title: "Mine", messages: [{}, { text: "b" }] });
});

test("a removed chat can be restored with its images until they are deleted", async () => {
  const storage = new MemoryStorage();
  const library = new Library(storage);
  const chat = addQuestion(newChat(), "", [image]);
  await library.put(chat, blobs);
  const restore = await library.remove(chat.id);
  expect(library.chats.value).toEqual([]);
  expect(await storage.chats()).toEqual([]);
  await restore();
  expect(await (await library.image("p")).text()).toBe("cat");
  await library.deleteUnusedImages();
  expect(await storage.image("p")).toBeDefined();
  await library.remove(chat.id);
  await library.deleteUnusedImages();
  await expect(library.image("p")).rejects.toThrow("no longer");
});

test("clearing also removes what was not saved yet", async () => {
  const storage = new MemoryStorage();
  const library = new Library(storage);
  const chat = addQuestion(newChat(), "", [image]);
  await library.put(chat, blobs);
  library.update(chat.id, (now) => rename(now, "Mine"));
  await library.clear();
  await library.save();
  expect(await storage.chats()).toEqual([]);
  expect(await storage.image("p")).toBeUndefined();
});

test("a storage error is reported, and the chat stays in memory with its images", async () => {
  class FullStorage extends MemoryStorage {
    override save = () => Promise.reject(new Error("full"));
  }
  const errors: unknown[] = [];
  const library = new Library(new FullStorage(), (error) => errors.push(error));
  const chat = addQuestion(newChat(), "", [image]);
  await library.put(chat, blobs);
  expect(library.get(chat.id)).toBe(chat);
  expect(await (await library.image("p")).text()).toBe("cat");
  expect(errors).toHaveLength(1);
});
