/** Chats saved in the browser. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { expectAccessible } from "../helpers/browser.ts";
import { image } from "../helpers/cli-command.ts";
import { answered, button, chooseFromMenu, describeExample, setStage, written } from "../helpers/page.ts";

const { folder, open, url } = setStage();

test("saves chats: reload, rename, delete and undo, export, delete all, import", async () => {
  const page = await open();
  await describeExample(page);
  const text = await written(page);
  await page.reload();
  await answered(page);
  expect(await written(page)).toBe(text);
  await page.locator(".message-image img").waitFor();
  expect(
    await page.evaluate(
      "document.querySelector('.message-image img').decode().then(() => document.querySelector('.message-image img').naturalWidth)",
    ),
  ).toBe(451);

  await chooseFromMenu(page, /^Options for (?!Chats)/, "Rename");
  await page.getByLabel("Title").fill("My cat");
  await page.keyboard.press("Enter");
  await page.getByRole("link", { name: "My cat" }).waitFor();

  const [markdown] = await Promise.all([
    page.waitForEvent("download"),
    chooseFromMenu(page, "Options for My cat", "Export as Markdown"),
  ]);
  expect(markdown.suggestedFilename()).toBe("My cat.md");
  const exported = readFileSync((await markdown.path()) ?? "", "utf8");
  expect(exported).toContain(`![cat.jpg](data:image/jpeg;base64,${readFileSync(image("cat.jpg")).toString("base64")})`);
  const [json] = await Promise.all([
    page.waitForEvent("download"),
    chooseFromMenu(page, "Options for My cat", "Export as JSON"),
  ]);
  const file = join(folder, "chat.json");
  await json.saveAs(file);

  await chooseFromMenu(page, "Options for My cat", "Delete");
  await expect.poll(() => page.getByRole("link", { name: "My cat" }).count()).toBe(0);
  expect(new URL(page.url()).hash).toBe("#/");
  await button(page, "Undo").click();
  await page.getByRole("link", { name: "My cat" }).waitFor();

  await chooseFromMenu(page, "Options for Chats", "Delete all");
  await expectAccessible(page);
  await button(page.getByRole("dialog"), "Delete all").click();
  await page.getByText("Your chats appear here.").waitFor();
  await page.reload();
  await page.getByText("Your chats appear here.").waitFor();

  await page.locator("input[accept*=json]").setInputFiles(file);
  await page.getByText("Imported 1 chat.").waitFor();
  await page.getByRole("link", { name: "My cat" }).click();
  await page.getByRole("img", { name: "cat.jpg" }).waitFor();
  expect(await written(page)).toBe(text);
  await page.locator("input[accept*=json]").setInputFiles(image("cat.jpg"));
  await page.getByText("Import failed: the file is not valid JSON").waitFor();
});

test("two tabs show the same chats", async () => {
  const page = await open();
  const other = await page.context().newPage();
  await other.goto(url());
  await describeExample(page);
  await other.locator(".chats li").first().waitFor();
  expect(await other.locator(".chats li").count()).toBe(1);
});

test("chats of an earlier version of the page are migrated with their images", async () => {
  const page = await open();
  await page.evaluate(`(async () => {
    const bytes = Uint8Array.from(atob("${readFileSync(image("cat.jpg")).toString("base64")}"), (char) => char.charCodeAt(0));
    const image = new Blob([bytes], { type: "image/jpeg" });
    await new Promise((resolve, reject) => {
      const deleting = indexedDB.deleteDatabase("minigpt4");
      deleting.onsuccess = resolve;
      deleting.onerror = reject;
    });
    const db = await new Promise((resolve, reject) => {
      const opening = indexedDB.open("minigpt4", 1);
      opening.onupgradeneeded = () => {
        opening.result.createObjectStore("chats", { keyPath: "id" });
        opening.result.createObjectStore("pictures");
      };
      opening.onsuccess = () => resolve(opening.result);
      opening.onerror = reject;
    });
    const pictures = [{ id: "p1", name: "cat.jpg", width: 451, height: 300 }];
    const messages = [
      { role: "user", id: "q1", text: "What is this?", pictures },
      { role: "assistant", id: "a1", text: "A cat.", end: "stop" },
    ];
    const transaction = db.transaction(["chats", "pictures"], "readwrite");
    transaction.objectStore("chats").put({ id: "c1", title: "Old chat", created: 1, updated: 2, messages });
    transaction.objectStore("pictures").put(image, "p1");
    await new Promise((resolve) => (transaction.oncomplete = resolve));
    db.close();
  })()`);
  await page.reload();
  await page.getByRole("link", { name: "Old chat" }).click();
  await page.getByRole("img", { name: "cat.jpg" }).waitFor();
  await page.getByText("A cat.").waitFor();
  expect(
    await page.evaluate(
      "document.querySelector('.message-image img').decode().then(() => document.querySelector('.message-image img').naturalWidth)",
    ),
  ).toBe(451);
});
