/** The page as people use it: in a browser, before the real server with a tiny model. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { Browser, BrowserContextOptions, Locator, Page } from "playwright-core";
import sharp from "sharp";
import { build } from "vite";
import { afterAll, beforeAll, expect, onTestFinished, test } from "vitest";
import { picture } from "../cli/command.ts";
import { temporaryFolder, tinyModel } from "../cli/tiny-model.ts";
import { expectAccessible, launchBrowser, openPage } from "./browser.ts";
import { type ServeProcess, serve } from "./serve.ts";

const folder = temporaryFolder();
const model = tinyModel(folder);
let browser: Browser;
let server: ServeProcess;

beforeAll(async () => {
  browser = await launchBrowser();
  await build({ root: join(import.meta.dirname, "..", "..", "web"), logLevel: "error" });
  server = await serve(model);
}, 120_000);

afterAll(async () => {
  await browser?.close();
  await server?.kill();
});

/** Opens the page for a test; at its end it must not have complained, but for what the test expects. */
async function open(options: BrowserContextOptions = {}, { url = server.url, expected = /^$/ } = {}): Promise<Page> {
  const { page, complaints } = await openPage(browser, url, options);
  page.setDefaultTimeout(20_000);
  onTestFinished(async () => {
    await page.context().close();
    expect(complaints.filter((complaint) => !expected.test(complaint))).toEqual([]);
  });
  return page;
}

const button = (at: Page | Locator, name: string | RegExp) => at.getByRole("button", { name, exact: true });
const field = (page: Page) => page.getByLabel("Your question");
const answers = (page: Page) => page.getByRole("region", { name: "Model" });
const questions = (page: Page) => page.getByRole("region", { name: "You" });
const written = async (page: Page) => (await answers(page).last().locator(".answer-text").textContent()) ?? "";

/** Waits until an answer is complete. */
async function answered(page: Page): Promise<void> {
  await button(page, "Answer again").waitFor();
}

async function describeExample(page: Page): Promise<void> {
  await button(page, "cat: Chelsea the cat").click();
  await button(page, "Describe").click();
  await answered(page);
}

/** Makes answers as long as can be set, and the network slow, so that there is time to do something while one is written. */
async function slowAnswers(page: Page): Promise<void> {
  await page.evaluate(`localStorage.setItem("minigpt4.settings", JSON.stringify({ maxNewTokens: 1000 }))`);
  await page.reload();
  await field(page).waitFor();
  const devtools = await page.context().newCDPSession(page);
  const bytesPerSecond = 8000;
  await devtools.send("Network.emulateNetworkConditions", {
    offline: false,
    latency: 0,
    downloadThroughput: bytesPerSecond,
    uploadThroughput: -1,
  });
}

async function chooseFromMenu(page: Page, menu: string | RegExp, item: string): Promise<void> {
  const opener = button(page, menu).first();
  await opener.focus();
  await opener.click();
  await page.getByRole("menuitem", { name: item }).click();
}

/** Drops or pastes a file, as far as a page can tell. */
async function bring(
  page: Page,
  event: "drop" | "paste",
  file: { name: string; type: string; bytes: Buffer },
): Promise<void> {
  await page.evaluate(`{
    const bytes = Uint8Array.from(atob("${file.bytes.toString("base64")}"), (char) => char.charCodeAt(0));
    const transfer = new DataTransfer();
    transfer.items.add(new File([bytes], "${file.name}", { type: "${file.type}" }));
    const how = { bubbles: true, cancelable: true };
    document.body.dispatchEvent(${
      event === "drop"
        ? "new DragEvent('drop', { ...how, dataTransfer: transfer })"
        : "new ClipboardEvent('paste', { ...how, clipboardData: transfer })"
    });
  }`);
}

/** The pictures of the next question that is sent, as the server gets them. */
function sentPictures(page: Page): Promise<Buffer[]> {
  return page.waitForRequest("**/v1/chat/completions").then((request) => {
    const urls = [...(request.postData() ?? "").matchAll(/data:image\/\w+;base64,([\w+/=]+)/g)];
    return urls.map(([, base64 = ""]) => Buffer.from(base64, "base64"));
  });
}

test("an example picture is described, asked about, and described anew", async () => {
  const page = await open();
  await expectAccessible(page);
  await button(page, "cat: Chelsea the cat").click();
  await page.getByRole("img", { name: "cat.jpg" }).waitFor();
  await expectAccessible(page);

  const sent = sentPictures(page);
  await button(page, "Describe").click();
  await answered(page);
  // A small picture goes as it is.
  expect((await sent)[0]?.equals(readFileSync(picture("cat.jpg")))).toBe(true);
  const first = await written(page);
  expect(first.length).toBeGreaterThan(0);
  await expectAccessible(page);

  await field(page).fill("What **is** <i>it</i>?");
  await page.keyboard.press("Enter");
  await answered(page);
  expect(await questions(page).last().textContent()).toContain("What **is** <i>it</i>?");
  expect(await answers(page).count()).toBe(2);

  const before = await written(page);
  await button(page, "Answer again").click();
  await page.getByText("At temperature 0 the same question has the same answer.").waitFor();
  await expectAccessible(page);
  await answered(page);
  expect(await written(page)).toBe(before);
  expect(await answers(page).count()).toBe(2);

  await questions(page).first().hover();
  await button(questions(page).first(), "Edit question").click();
  await expectAccessible(page);
  await page.getByRole("textbox", { name: "Edit question" }).fill("Is it a dog?");
  await button(page, "Ask this instead").click();
  await answered(page);
  expect(await questions(page).allTextContents()).toEqual([expect.stringContaining("Is it a dog?")]);
  await page.getByRole("img", { name: "cat.jpg" }).waitFor();
});

test("an answer is streamed, and told to a screen reader once; it can be stopped", async () => {
  const page = await open();
  await slowAnswers(page);
  await page.evaluate(`{
    globalThis.told = [];
    const live = document.querySelector("[aria-live=polite]");
    new MutationObserver(() => told.push(live.textContent)).observe(live, { subtree: true, childList: true, characterData: true });
  }`);
  await field(page).fill("Talk.");
  await button(page, "Send").click();
  const lengths = new Set<number>();
  await page.locator(".answer-text.writing").waitFor();
  while (lengths.size < 4) lengths.add((await written(page)).length);
  await page.keyboard.press("Escape");
  await page.getByText("Stopped.").first().waitFor();
  const kept = await written(page);
  expect(kept.length).toBeGreaterThanOrEqual(Math.max(...lengths));
  expect(await page.evaluate("told")).toEqual(["Answering.", "Stopped."]);

  // The server has stopped, too: it answers the next question at once.
  await button(page, "Answer again").click();
  await page.locator(".answer-text.writing").waitFor();
  await button(page, "Stop").click();
  await answered(page);
  await expectAccessible(page);

  await button(page, "Answer again").click();
  await page.locator(".answer-text.writing").waitFor();
  await expectAccessible(page);
});

test("large photos are turned upright and scaled down; pictures come by choosing, dropping and pasting", async () => {
  const page = await open();
  const photo = await sharp({ create: { width: 3000, height: 2000, channels: 3, background: "#346" } })
    .withExif({ IFD0: { Orientation: "6" } })
    .withMetadata({ orientation: 6 })
    .jpeg()
    .toBuffer();
  const png = await sharp({ create: { width: 40, height: 30, channels: 4, background: "#a33" } })
    .png()
    .toBuffer();
  await page
    .locator("input[type=file][multiple]")
    .first()
    .setInputFiles([
      { name: "photo.jpg", mimeType: "image/jpeg", buffer: photo },
      { name: "small.png", mimeType: "image/png", buffer: png },
    ]);
  await page.getByRole("img", { name: "small.png" }).waitFor();
  await button(page, "Remove small.png").click();
  await bring(page, "drop", { name: "dropped.png", type: "image/png", bytes: png });
  await page.getByRole("img", { name: "dropped.png" }).waitFor();
  await bring(page, "drop", { name: "notes.txt", type: "text/plain", bytes: Buffer.from("no picture") });
  await page.getByText("notes.txt is not a picture.").waitFor();
  await bring(page, "drop", { name: "broken.png", type: "image/png", bytes: Buffer.from("no picture") });
  await page.getByText(/broken.png cannot be read/).waitFor();

  const sent = sentPictures(page);
  await button(page, "Describe").click();
  const [large, small] = await sent;
  expect(await sharp(large).metadata()).toMatchObject({ format: "jpeg", width: 683, height: 1024 });
  expect((await sharp(large).metadata()).orientation ?? 1).toBe(1);
  expect(small?.equals(png)).toBe(true);
  await answered(page);
  expect(await questions(page).first().textContent()).toContain("Describe these pictures.");

  await bring(page, "paste", { name: "pasted.png", type: "image/png", bytes: png });
  await page.getByRole("img", { name: "pasted.png" }).waitFor();
  await field(page).fill("And this?");
  const all = sentPictures(page);
  await button(page, "Send").click();
  expect(await all).toHaveLength(3);
  await answered(page);

  await button(page, "Enlarge photo.jpg").click();
  await page.getByRole("dialog", { name: "photo.jpg" }).waitFor();
  await expectAccessible(page);
  await page.keyboard.press("ArrowRight");
  await page.getByRole("dialog", { name: "dropped.png" }).waitFor();
  await page.keyboard.press("Escape");
  await expect.poll(() => page.getByRole("dialog").count()).toBe(0);
});

test("settings are kept, and sent", async () => {
  const page = await open();
  await button(page, "Settings").click();
  const dialog = page.getByRole("dialog", { name: "Settings" });
  await expectAccessible(page);
  await dialog.getByLabel("Temperature").fill("0.8");
  await dialog.getByLabel("Top-p").fill("0.5");
  await dialog.getByLabel("Seed").fill("nonsense");
  await dialog.getByText("A whole number from 0 to 4294967295.").waitFor();
  await dialog.getByLabel("Seed").fill("7");
  await dialog.getByLabel("Longest answer").fill("20");
  await dialog.getByLabel("System prompt").fill("Be brief.");
  await page.keyboard.press("Escape");
  await page.reload();
  await field(page).fill("Hello");
  const request = page.waitForRequest("**/v1/chat/completions");
  await page.keyboard.press("Enter");
  expect((await request).postDataJSON()).toMatchObject({
    temperature: 0.8,
    top_p: 0.5,
    seed: 7,
    max_tokens: 20,
    messages: [
      { role: "system", content: "Be brief." },
      { role: "user", content: "Hello" },
    ],
  });
  await page.getByText("The answer has reached the greatest length that is set.").waitFor();
  const first = await written(page);
  await button(page, "Answer again").click();
  await answered(page);
  expect(await written(page)).toBe(first);

  await button(page, "Settings").click();
  await dialog.getByLabel("Beams").fill("3");
  expect(await dialog.getByLabel("Temperature").isDisabled()).toBe(true);
  await button(dialog, "Reset all").click();
  expect(await dialog.getByLabel("System prompt").inputValue()).toBe("");
  expect(await dialog.getByLabel("Temperature").inputValue()).toBe("0");
});

test("chats are kept: reload, rename, delete and undo, export, delete all, import", async () => {
  const page = await open();
  await describeExample(page);
  const text = await written(page);
  await page.reload();
  await answered(page);
  expect(await written(page)).toBe(text);
  await page.locator(".print img").waitFor();
  expect(
    await page.evaluate(
      "document.querySelector('.print img').decode().then(() => document.querySelector('.print img').naturalWidth)",
    ),
  ).toBe(451);

  await chooseFromMenu(page, /^Options of (?!Chats)/, "Rename");
  await page.getByLabel("Title").fill("My cat");
  await page.keyboard.press("Enter");
  await page.getByRole("link", { name: "My cat" }).waitFor();

  const [markdown] = await Promise.all([
    page.waitForEvent("download"),
    chooseFromMenu(page, "Options of My cat", "Export as Markdown"),
  ]);
  expect(markdown.suggestedFilename()).toBe("My cat.md");
  const exported = readFileSync((await markdown.path()) ?? "", "utf8");
  expect(exported).toContain(
    `![cat.jpg](data:image/jpeg;base64,${readFileSync(picture("cat.jpg")).toString("base64")})`,
  );
  const [json] = await Promise.all([
    page.waitForEvent("download"),
    chooseFromMenu(page, "Options of My cat", "Export as JSON"),
  ]);
  const file = join(folder, "chat.json");
  await json.saveAs(file);

  await chooseFromMenu(page, "Options of My cat", "Delete");
  await expect.poll(() => page.getByRole("link", { name: "My cat" }).count()).toBe(0);
  expect(new URL(page.url()).hash).toBe("#/");
  await button(page, "Undo").click();
  await page.getByRole("link", { name: "My cat" }).waitFor();

  await chooseFromMenu(page, "Options of Chats", "Delete all");
  await expectAccessible(page);
  await button(page.getByRole("dialog"), "Delete all").click();
  await page.getByText("Your chats will be listed here.").waitFor();
  await page.reload();
  await page.getByText("Your chats will be listed here.").waitFor();

  await page.locator("input[accept*=json]").setInputFiles(file);
  await page.getByText("One chat was imported.").waitFor();
  await page.getByRole("link", { name: "My cat" }).click();
  await page.getByRole("img", { name: "cat.jpg" }).waitFor();
  expect(await written(page)).toBe(text);
  await page.locator("input[accept*=json]").setInputFiles(picture("cat.jpg"));
  await page.getByText("Nothing was imported: the file is not JSON").waitFor();
});

test("two tabs show the same chats", async () => {
  const page = await open();
  const other = await page.context().newPage();
  await other.goto(server.url);
  await describeExample(page);
  await other.locator(".chats li").first().waitFor();
  expect(await other.locator(".chats li").count()).toBe(1);
});

test.each(["light", "dark"] as const)("a phone, %s", async (colorScheme) => {
  const page = await open({ viewport: { width: 360, height: 640 }, isMobile: true, hasTouch: true, colorScheme });
  await expectAccessible(page);
  await button(page, "Take a photo").first().waitFor();
  await describeExample(page);
  await expectAccessible(page);
  await button(page, "Menu").click();
  const drawer = page.getByRole("dialog");
  await expectAccessible(page);
  await drawer.getByRole("link", { name: "Training" }).click();
  await page.getByRole("heading", { name: "Training" }).waitFor();
  await expectAccessible(page);
  expect(await drawer.count()).toBe(0);
});

test("dark as the system is, or as one likes it; Chinese as the browser is, or as one likes it", async () => {
  const page = await open({ colorScheme: "dark", locale: "zh-CN" });
  const paper = () => page.evaluate("getComputedStyle(document.documentElement).backgroundColor");
  const lang = () => page.evaluate("document.documentElement.lang");
  expect(await lang()).toBe("zh-Hans");
  await page.getByRole("heading", { name: "给它看一张图片。" }).waitFor();
  const dark = await paper();
  await expectAccessible(page);
  await page.getByTitle("浅色").click();
  await expect.poll(paper).not.toBe(dark);
  await page.getByLabel("语言").selectOption("en");
  await page.reload();
  expect(await lang()).toBe("en");
  await page.getByRole("heading", { name: "Show it a picture." }).waitFor();
  expect(await paper()).not.toBe(dark);
});

test("the keyboard alone is enough, and what an input method composes is not sent", async () => {
  const page = await open();
  await field(page).focus();
  await page.keyboard.type("first");
  await page.keyboard.press("Shift+Enter");
  await page.keyboard.type("second");
  await field(page).dispatchEvent("keydown", { key: "Enter", isComposing: true });
  expect(await field(page).inputValue()).toBe("first\nsecond");
  expect(await questions(page).count()).toBe(0);
  await page.keyboard.press("Enter");
  await answered(page);
  await page.keyboard.press("ArrowUp");
  await page.getByRole("textbox", { name: "Edit question" }).waitFor();
  await page.keyboard.press("Escape");
  expect(await page.getByRole("textbox", { name: "Edit question" }).count()).toBe(0);

  await page.keyboard.press("Alt+KeyH");
  await page.getByRole("dialog", { name: "Help" }).waitFor();
  await expectAccessible(page);
  await page.keyboard.press("Escape");
  await page.keyboard.press("Alt+KeyS");
  await page.getByRole("dialog", { name: "Settings" }).waitFor();
  await page.keyboard.press("Escape");
  await page.keyboard.press("Alt+KeyN");
  await page.getByRole("heading", { name: "Show it a picture." }).waitFor();

  // From the top of the page to an example and on, with the focus to be seen at every step.
  await page.reload();
  const focused = () =>
    page.evaluate<string>("document.activeElement.getAttribute('aria-label') ?? document.activeElement.textContent");
  for (let i = 0; i < 40 && !(await focused()).includes("Chelsea"); i++) {
    await page.keyboard.press("Tab");
    // Between the last element and the first, the focus is outside of the page.
    expect(await page.evaluate("document.activeElement.matches(':focus-visible, body')")).toBe(true);
  }
  await page.keyboard.press("Enter");
  await page.getByRole("img", { name: "cat.jpg" }).waitFor();
  await expect.poll(focused).toBe("Your question");
  await page.keyboard.press("Enter");
  await answered(page);
});

test("a busy server is asked again after the time that it says", async () => {
  const page = await open({}, { expected: /429/ });
  let refusals = 0;
  await page.route("**/v1/chat/completions", (route) => {
    if (refusals++ > 0) return route.continue();
    const body = JSON.stringify({ error: { message: "All places are taken" } });
    return route.fulfill({ status: 429, headers: { "retry-after": "2" }, contentType: "application/json", body });
  });
  await field(page).fill("Hello");
  await page.keyboard.press("Enter");
  await page.getByText(/The model is busy. Asking again in [12] s/).waitFor();
  await expectAccessible(page);
  await answered(page);
  expect(refusals).toBe(2);
});

test("a key is asked for, and neither kept in the browser nor exported", async () => {
  const locked = await serve(model, { env: { MINIGPT4_API_KEYS: "open-sesame-and-close" } });
  onTestFinished(() => locked.kill());
  const page = await open({}, { url: locked.url, expected: /401/ });
  const dialog = page.getByRole("dialog", { name: "API key" });
  await dialog.waitFor();
  await expectAccessible(page);
  await dialog.getByLabel("API key").fill("wrong");
  await page.keyboard.press("Enter");
  await dialog.getByText("The server does not take this key.").waitFor();
  await dialog.getByLabel("API key").fill("open-sesame-and-close");
  await page.keyboard.press("Enter");
  await expect.poll(() => dialog.count()).toBe(0);
  await field(page).fill("Hello");
  await page.keyboard.press("Enter");
  await answered(page);
  const [json] = await Promise.all([
    page.waitForEvent("download"),
    chooseFromMenu(page, "Options of Chats", "Export all"),
  ]);
  expect(readFileSync((await json.path()) ?? "", "utf8")).not.toContain("open-sesame-and-close");
  expect(await page.evaluate("JSON.stringify(localStorage)")).not.toContain("open-sesame-and-close");
});

test("a server that dies in the middle of an answer: what came is kept, and asking again works when it is back", async () => {
  const mortal = await serve(model);
  onTestFinished(() => mortal.kill());
  const page = await open({}, { url: mortal.url, expected: /ERR_|Failed to load resource/ });
  await slowAnswers(page);
  await field(page).fill("Talk.");
  await page.keyboard.press("Enter");
  await page.locator(".answer-text.writing").waitFor();
  while ((await written(page)).length < 20);
  await mortal.kill();
  await answers(page).getByText("The answer broke off.").waitFor();
  expect((await written(page)).length).toBeGreaterThanOrEqual(20);
  await expectAccessible(page);
  await button(answers(page).last(), "Try again").click();
  await answers(page).last().getByText("The question did not reach the model.").waitFor();
  await page.locator(".foot").getByText("Nobody answers at the server's address.").waitFor();
  await expectAccessible(page);
  const back = await serve(model, { port: mortal.port });
  onTestFinished(() => back.kill());
  await page.getByText("This page keeps trying.").waitFor({ state: "hidden" });
  await button(answers(page).last(), "Try again").click();
  await page.locator(".answer-text.writing").waitFor();
  await button(page, "Stop").click();
  await answered(page);
});
