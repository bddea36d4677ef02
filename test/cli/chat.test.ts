import { join } from "node:path";
import { expect, test } from "vitest";
import { MiniGPT4 } from "../../src/chat/minigpt4.ts";
import { image, minigpt4, outcome, start } from "../helpers/cli-command.ts";
import { temporaryFolder, tinyModel } from "../helpers/tiny-model.ts";

const folder = temporaryFolder();
const model = tinyModel(folder);
const short = ["--model", model, "--max-new-tokens", "6"];

/** The answers of the library to questions of one conversation, as the command prints them. */
async function answers(turns: [question: string, images: string[]][], system?: string): Promise<string> {
  const loaded = await MiniGPT4.load(model);
  const conversation = loaded.chat({ system });
  let all = "";
  for (const [question, images] of turns) {
    let answer = "";
    for await (const piece of conversation.ask(question, { images, maxNewTokens: 6 })) answer += piece;
    all += `${answer.trimStart().replace(/[^\P{Cc}\n\t]/gu, "")}\n`;
  }
  await loaded.close();
  return all;
}

test("each line is a question of one conversation, with images", async () => {
  const [cat, coffee] = [image("cat.jpg"), image("coffee.jpg")];
  const lines = `What is this?\n/image "${coffee}"\nAnd this?\r\nWhich is larger?`;
  const { code, stdout, stderr } = await minigpt4(["chat", cat, ...short], lines);
  expect({ code, stderr }).toEqual({ code: 0, stderr: `Added ${coffee} to your next question.\n` });
  const expected = await answers([
    ["What is this?", [cat]],
    ["And this?", [coffee]],
    ["Which is larger?", []],
  ]);
  expect(stdout).toBe(expected);
});

test("/new starts a new conversation, --system sets the system prompt, /quit exits", async () => {
  const lines = "Hello\n/new\nHello\n/quit\nHello\n";
  const { code, stdout } = await minigpt4(["chat", "--system", "Be brief.", ...short], lines);
  expect(code).toBe(0);
  const once = await answers([["Hello", []]], "Be brief.");
  expect(stdout).toBe(once + once);
  expect(once).not.toBe(await answers([["Hello", []]]));
});

test("answers empty questions with a hint, reports errors, and continues", async () => {
  const lines = `\n/image ${join(folder, "missing.jpg")}\n/image\n/dance\n/help\nHello\n`;
  const { code, stdout, stderr } = await minigpt4(["chat", ...short], lines);
  expect({ code, stdout }).toEqual({ code: 1, stdout: await answers([["Hello", []]]) });
  expect(stderr.split("\n").slice(0, 4)).toEqual([
    "Type a question, for example: What is in the image?",
    `error: ${join(folder, "missing.jpg")} cannot be read: no such file or folder`,
    "error: /image needs the path of an image",
    "error: unknown command /dance; type /help for the list of commands",
  ]);
  expect(stderr).toContain("/quit");
});

test("reports an unreadable image before the model is loaded", async () => {
  const { code, stderr } = await minigpt4(["chat", join(folder, "none.png"), "--model", "not needed"]);
  expect(code).toBe(1);
  expect(stderr).toBe(`error: ${join(folder, "none.png")} cannot be read: no such file or folder\n`);
});

test("Ctrl-C during an answer to piped input exits with 130", async () => {
  const child = start(["chat", "--model", model, "--max-new-tokens", "400"]);
  child.stdin?.write("Tell me a long story\nAnd another\n");
  child.stdout?.once("data", () => child.kill("SIGINT"));
  const { code, stderr } = await outcome(child);
  expect({ code, stderr }).toEqual({ code: 130, stderr: "" });
});
