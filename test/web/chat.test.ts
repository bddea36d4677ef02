/** Edits of a chat. */
import { expect, test } from "vitest";
import {
  ask,
  askAgain,
  type Chat,
  changeAnswer,
  editQuestion,
  imagesOf,
  newChat,
  rename,
  saidIn,
  settle,
  titleOf,
} from "../../web/chat/chat.ts";

const cat = { id: "p1", name: "cat.jpg", width: 30, height: 20 };
const answered = (chat: Chat, text: string) => changeAnswer(chat, (answer) => ({ ...answer, text, end: "stop" }));
const texts = (chat: Chat) => chat.messages.map(({ role, text }) => `${role}: ${text}`);

test("a question has its answer after it, which is written later", () => {
  const chat = ask(newChat(), "  What is this? ", [cat]);
  expect(texts(chat)).toEqual(["user: What is this?", "assistant: "]);
  expect(texts(answered(chat, "A cat."))).toEqual(["user: What is this?", "assistant: A cat."]);
  expect(imagesOf(chat)).toEqual([cat]);
});

test("an edited question keeps its images, and what followed it is gone", () => {
  let chat = answered(ask(newChat(), "What is this?", [cat]), "A cat.");
  chat = answered(ask(chat, "Sure?", []), "Yes.");
  const edited = editQuestion(chat, chat.messages[0]?.id ?? "", "What colour is it?");
  expect(texts(edited)).toEqual(["user: What colour is it?", "assistant: "]);
  expect(imagesOf(edited)).toEqual([cat]);
  expect(editQuestion(chat, "nobody", "x")).toBe(chat);
  expect(editQuestion(chat, chat.messages[1]?.id ?? "", "an answer is no question")).toBe(chat);
});

test("asking again replaces only the last answer, and its id, so that a late text of the old one has no place", () => {
  const chat = answered(ask(answered(ask(newChat(), "a", []), "1"), "b", []), "2");
  const again = askAgain(chat);
  expect(texts(again)).toEqual(["user: a", "assistant: 1", "user: b", "assistant: "]);
  expect(again.messages[3]?.id).not.toBe(chat.messages[3]?.id);
  const empty = newChat();
  expect(askAgain(empty)).toBe(empty);
});

test("the title is the user's, or the first words, or none", () => {
  expect(titleOf(newChat())).toBeUndefined();
  const wordless = ask(newChat(), "", [cat]);
  expect(titleOf(wordless)).toBeUndefined();
  expect(titleOf(answered(wordless, "A cat\nsits."))).toBe("A cat sits.");
  const long = ask(newChat(), "word ".repeat(40), []);
  expect(titleOf(long)).toHaveLength(60);
  const named = rename(long, " Mine ");
  expect(titleOf(named)).toBe("Mine");
  expect(titleOf(rename(named, " "))).toBe(titleOf(long));
});

test("an answer that nobody finished counts as stopped", () => {
  const chat = ask(newChat(), "a", []);
  expect(settle(chat).messages.at(-1)).toMatchObject({ end: "stopped" });
  const done = answered(chat, "b");
  expect(settle(done)).toBe(done);
});

test("the model is shown all that was said, with the bytes of images, but no empty answers", async () => {
  let chat = changeAnswer(ask(newChat(), "", [cat]), (answer) => ({ ...answer, end: "stopped" }));
  chat = ask(chat, "And now?", []);
  const said = await saidIn(chat, async (id) => new Blob([id]));
  expect(said.map(({ role, text }) => [role, text])).toEqual([
    ["user", ""],
    ["user", "And now?"],
  ]);
  expect(await said[0]?.images[0]?.text()).toBe("p1");
});
