/** Edits of a chat. */
import { expect, test } from "vitest";
import {
  addQuestion,
  type Chat,
  chatImages,
  chatTitle,
  editQuestion,
  markStopped,
  newChat,
  promptMessages,
  rename,
  resetLastAnswer,
  updateAnswer,
} from "../../web/chat/chat.ts";

const cat = { id: "p1", name: "cat.jpg", width: 30, height: 20 };
const answered = (chat: Chat, text: string) => updateAnswer(chat, (answer) => ({ ...answer, text, end: "stop" }));
const texts = (chat: Chat) => chat.messages.map(({ role, text }) => `${role}: ${text}`);

test("a question is followed by an empty answer", () => {
  const chat = addQuestion(newChat(), "  What is this? ", [cat]);
  expect(texts(chat)).toEqual(["user: What is this?", "assistant: "]);
  expect(texts(answered(chat, "A cat."))).toEqual(["user: What is this?", "assistant: A cat."]);
  expect(chatImages(chat)).toEqual([cat]);
});

test("editing a question keeps its images and removes what followed it", () => {
  let chat = answered(addQuestion(newChat(), "What is this?", [cat]), "A cat.");
  chat = answered(addQuestion(chat, "Sure?", []), "Yes.");
  const edited = editQuestion(chat, chat.messages[0]?.id ?? "", "What colour is it?");
  expect(texts(edited)).toEqual(["user: What colour is it?", "assistant: "]);
  expect(chatImages(edited)).toEqual([cat]);
  expect(editQuestion(chat, "nobody", "x")).toBe(chat);
  expect(editQuestion(chat, chat.messages[1]?.id ?? "", "an answer is no question")).toBe(chat);
});

test("resetting replaces only the last answer and its id, so that late text of the old one is ignored", () => {
  const chat = answered(addQuestion(answered(addQuestion(newChat(), "a", []), "1"), "b", []), "2");
  const again = resetLastAnswer(chat);
  expect(texts(again)).toEqual(["user: a", "assistant: 1", "user: b", "assistant: "]);
  expect(again.messages[3]?.id).not.toBe(chat.messages[3]?.id);
  const empty = newChat();
  expect(resetLastAnswer(empty)).toBe(empty);
});

test("the title is the user's, or the first words, or undefined", () => {
  expect(chatTitle(newChat())).toBeUndefined();
  const wordless = addQuestion(newChat(), "", [cat]);
  expect(chatTitle(wordless)).toBeUndefined();
  expect(chatTitle(answered(wordless, "A cat\nsits."))).toBe("A cat sits.");
  const long = addQuestion(newChat(), "word ".repeat(40), []);
  expect(chatTitle(long)).toHaveLength(60);
  const named = rename(long, " Mine ");
  expect(chatTitle(named)).toBe("Mine");
  expect(chatTitle(rename(named, " "))).toBe(chatTitle(long));
});

test("an unfinished answer is marked as stopped", () => {
  const chat = addQuestion(newChat(), "a", []);
  expect(markStopped(chat).messages.at(-1)).toMatchObject({ end: "stopped" });
  const done = answered(chat, "b");
  expect(markStopped(done)).toBe(done);
});

test("the prompt has all messages with the bytes of images, without empty answers", async () => {
  let chat = updateAnswer(addQuestion(newChat(), "", [cat]), (answer) => ({ ...answer, end: "stopped" }));
  chat = addQuestion(chat, "And now?", []);
  const prompt = await promptMessages(chat, async (id) => new Blob([id]));
  expect(prompt.map(({ role, text }) => [role, text])).toEqual([
    ["user", ""],
    ["user", "And now?"],
  ]);
  expect(await prompt[0]?.images[0]?.text()).toBe("p1");
});
