/** Export and import of chats. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { addQuestion, type Chat, chatImages, newChat, rename, updateAnswer } from "../../web/chat/chat.ts";
import { fileName, fromJson, toJson, toMarkdown } from "../../web/chat/export.ts";

const png = new Blob([Uint8Array.of(1, 2, 3, 255)], { type: "image/png" });
const cat = { id: "p1", name: "my [cat].png", width: 30, height: 20 };
const names = { you: "You", model: "Model", untitled: "Untitled" };
const image = async () => png;

function chatAboutCat(): Chat {
  const chat = addQuestion(newChat(), "What <b>is</b> this?", [cat]);
  return updateAnswer(chat, (answer) => ({ ...answer, text: "A **cat**.", end: "stop" }));
}

test("Markdown embeds images and escapes questions", async () => {
  const text = await toMarkdown(chatAboutCat(), image, names);
  expect(text).toBe(
    "# What \\<b\\>is\\</b\\> this?\n\n**You**\n\n![my \\[cat\\].png](data:image/png;base64,AQID/w==)\n\n" +
      "What \\<b\\>is\\</b\\> this?\n\n**Model**\n\nA **cat**.\n",
  );
});

test("an exported chat can be imported, with a new id", async () => {
  const chat = rename(chatAboutCat(), "Cats");
  const [read] = fromJson(await toJson([chat], image));
  expect(read?.chat).toMatchObject({ title: "Cats", created: chat.created, updated: chat.updated });
  expect(read?.chat.id).not.toBe(chat.id);
  expect(read?.chat.messages.map(({ role, text }) => [role, text])).toEqual([
    ["user", "What <b>is</b> this?"],
    ["assistant", "A **cat**."],
  ]);
  const [ref] = chatImages(read?.chat ?? newChat());
  const blob = read?.images.get(ref?.id ?? "");
  expect(blob?.type).toBe("image/png");
  expect(new Uint8Array((await blob?.arrayBuffer()) ?? new ArrayBuffer(0))).toEqual(Uint8Array.of(1, 2, 3, 255));
});

test("any text survives export and import", async () => {
  await fc.assert(
    fc.asyncProperty(fc.string({ unit: "grapheme" }), async (text) => {
      const chat = updateAnswer(addQuestion(newChat(), "q", []), (answer) => ({ ...answer, text, end: "stop" }));
      expect(fromJson(await toJson([chat], image))[0]?.chat.messages[1]?.text).toBe(text);
    }),
    { numRuns: 30 },
  );
});

test.each([
  ["invalid JSON", "{", /not valid JSON/],
  ["another file", '{"a": 1}', /not a chat export/],
  ["a later version", '{"format": "minigpt4-chats", "version": 2}', /version 2/],
  ["a message without a valid role", wrong({ messages: [{ role: "x", text: "" }] }), /chat 1, message 1: role must be/],
  ["a missing image", wrong({ messages: [userWith("p9")] }), /image 1 is missing from the file/],
  ["an image that could contain a script", wrong({ messages: [userWith("svg")] }), /image 1 is missing from the file/],
  ["an invalid time", wrong({ created: "yesterday" }), /created must be a number/],
])("%s is rejected with a reason", (_, text, reason) => {
  expect(() => fromJson(text)).toThrow(reason);
});

test("no import crashes the page", () => {
  fc.assert(
    fc.property(fc.json(), fc.jsonValue(), (text, chat) => {
      for (const file of [text, JSON.stringify({ format: "minigpt4-chats", version: 1, images: {}, chats: [chat] })]) {
        expect(() => fromJson(file)).toThrow(Error);
      }
    }),
  );
});

test("file names are valid on all file systems", () => {
  expect(fileName('What is "this"? a/b\\c: <d>.', "md")).toBe("What is this a b c d.md");
  expect(fileName("...", "json")).toBe("chat.json");
  expect(fileName("猫".repeat(100), "md")).toBe(`${"猫".repeat(60)}.md`);
});

function wrong(change: object): string {
  const chat = { created: 1, updated: 1, messages: [], ...change };
  const images = { svg: "data:image/svg+xml;base64,PHN2Zz4=" };
  return JSON.stringify({ format: "minigpt4-chats", version: 1, chats: [chat], images });
}

function userWith(id: string): object {
  return { role: "user", text: "", images: [{ id, name: "x", width: 1, height: 1 }] };
}
