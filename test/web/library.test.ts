/** Chats in memory and in the storage. */
import { expect, test } from "vitest";
import { ask, changeAnswer, newChat, rename } from "../../web/chat/chat.ts";
import { Library } from "../../web/chat/library.ts";
import { MemoryChats } from "../../web/chat/storage.ts";

const image = { id: "p", name: "cat.jpg", width: 1, height: 1 };
const blobs = new Map([["p", new Blob(["cat"])]]);

test("the chat that was used last comes first, also after opening again", async () => {
  const storage = new MemoryChats();
  const library = new Library(storage);
  const [old, young] = [newChat(1000), newChat(2000)];
  await library.put(young);
  await library.put(old);
  expect(library.chats.value.map(({ id }) => id)).toEqual([young.id, old.id]);
  await library.put(ask(old, "more", [], 3000));
  const again = new Library(storage);
  await again.open();
  expect(again.chats.value.map(({ id }) => id)).toEqual([old.id, young.id]);
  expect(again.get(old.id)?.messages.at(-1)).toMatchObject({ role: "assistant", end: "stopped" });
});

test("changes are shown at once and kept a little later", async () => {
  const storage = new MemoryChats();
  const library = new Library(storage);
  const chat = ask(newChat(), "a", []);
  await library.put(chat);
  library.change(chat.id, (now) => changeAnswer(now, (answer) => ({ ...answer, text: "b" })));
  library.change(chat.id, (now) => rename(now, "Mine"));
  expect(library.get(chat.id)).toMatchObject({ title: "Mine" });
  expect(await storage.chat(chat.id)).not.toHaveProperty("title");
  await library.save();
  expect(await storage.chat(chat.id)).toMatchObject({ title: "Mine", messages: [{}, { text: "b" }] });
});

test("a removed chat can come back with its images, until they are swept away", async () => {
  const storage = new MemoryChats();
  const library = new Library(storage);
  const chat = ask(newChat(), "", [image]);
  await library.put(chat, blobs);
  const bringBack = await library.remove(chat.id);
  expect(library.chats.value).toEqual([]);
  expect(await storage.chats()).toEqual([]);
  await bringBack();
  expect(await (await library.image("p")).text()).toBe("cat");
  await library.sweep();
  expect(await storage.image("p")).toBeDefined();
  await library.remove(chat.id);
  await library.sweep();
  await expect(library.image("p")).rejects.toThrow("no longer");
});

test("clearing leaves nothing, not even what was still to be kept", async () => {
  const storage = new MemoryChats();
  const library = new Library(storage);
  const chat = ask(newChat(), "", [image]);
  await library.put(chat, blobs);
  library.change(chat.id, (now) => rename(now, "Mine"));
  await library.clear();
  await library.save();
  expect(await storage.chats()).toEqual([]);
  expect(await storage.image("p")).toBeUndefined();
});

test("a full storage is told, and the chat stays in memory with its images", async () => {
  class FullStorage extends MemoryChats {
    override save = () => Promise.reject(new Error("full"));
  }
  const problems: unknown[] = [];
  const library = new Library(new FullStorage(), (problem) => problems.push(problem));
  const chat = ask(newChat(), "", [image]);
  await library.put(chat, blobs);
  expect(library.get(chat.id)).toBe(chat);
  expect(await (await library.image("p")).text()).toBe("cat");
  expect(problems).toHaveLength(1);
});
