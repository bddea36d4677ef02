/** Chats saved by earlier versions of the page. */
import { expect, test } from "vitest";
import { type Chat, chatImages } from "../../web/chat/chat.ts";
import { fromJson } from "../../web/chat/export.ts";
import { migrateChat } from "../../web/chat/storage.ts";

const image = { id: "p1", name: "cat.jpg", width: 30, height: 20 };
const messages = [
  { role: "user", id: "q1", text: "What is this?", pictures: [image] },
  { role: "assistant", id: "a1", text: "A cat.", end: "stop", timing: { first: 0.5, rest: 1, tokens: 3 } },
  { role: "user", id: "q2", text: "And this?", pictures: [] },
  { role: "assistant", id: "a2", text: "", end: "problem", problem: { kind: "picture", message: "broken" } },
];
const saved = { id: "c1", title: "Cats", created: 1, updated: 2, messages };

test("a chat of version 1 becomes a current one", () => {
  const chat = migrateChat(saved as unknown as Chat);
  expect(chat).toEqual({
    ...saved,
    messages: [
      { role: "user", id: "q1", text: "What is this?", images: [image] },
      messages[1],
      { role: "user", id: "q2", text: "And this?", images: [] },
      { role: "assistant", id: "a2", text: "", end: "problem", problem: { kind: "image", message: "broken" } },
    ],
  });
  expect(migrateChat(chat)).toEqual(chat);
});

test("an export of an earlier version can be imported", async () => {
  const file = { format: "minigpt4-chats", version: 1, chats: [saved], pictures: { p1: "data:image/png;base64,AQID" } };
  const [imported] = fromJson(JSON.stringify(file));
  expect(imported?.chat).toMatchObject({ title: "Cats", messages: [{ text: "What is this?" }, {}, {}, {}] });
  const [ref] = imported ? chatImages(imported.chat) : [];
  expect(ref).toMatchObject({ name: "cat.jpg", width: 30, height: 20 });
  expect(await imported?.images.get(ref?.id ?? "")?.bytes()).toEqual(Uint8Array.of(1, 2, 3));
});
