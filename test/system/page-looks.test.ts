/** The web page on a phone, in dark mode, in Chinese, and with the keyboard only. */
import { expect, test } from "vitest";
import { expectAccessible } from "../helpers/browser.ts";
import { answered, button, chooseFromMenu, describeExample, field, questions, setStage } from "../helpers/page.ts";

const { open } = setStage();

test.each(["light", "dark"] as const)("a phone, %s", async (colorScheme) => {
  const page = await open({ viewport: { width: 360, height: 640 }, isMobile: true, hasTouch: true, colorScheme });
  await expectAccessible(page);
  await button(page, "Take a photo").first().waitFor();
  await describeExample(page);
  await expectAccessible(page);
  await button(page, "Menu").click();
  const drawer = page.getByRole("dialog");
  await expectAccessible(page);
  await chooseFromMenu(drawer, /^Options for (?!Chats)/, "Delete");
  await button(page, "Undo").click();
  // Undo opens the chat again.
  await answered(page);
  await button(page, "Menu").click();
  await drawer.getByRole("link", { name: "Training" }).click();
  await page.getByRole("heading", { name: "Training" }).waitFor();
  await expectAccessible(page);
  expect(await drawer.count()).toBe(0);
});

test("theme and language follow the system, or the user's choice", async () => {
  const page = await open({ colorScheme: "dark", locale: "zh-CN" });
  const paper = () => page.evaluate("getComputedStyle(document.documentElement).backgroundColor");
  const lang = () => page.evaluate("document.documentElement.lang");
  expect(await lang()).toBe("zh-Hans");
  await page.getByRole("heading", { name: "与图片对话" }).waitFor();
  const dark = await paper();
  await expectAccessible(page);
  await page.getByTitle("浅色").click();
  await expect.poll(paper).not.toBe(dark);
  await page.getByLabel("语言").selectOption("en");
  await page.reload();
  expect(await lang()).toBe("en");
  await page.getByRole("heading", { name: "Chat about an image" }).waitFor();
  expect(await paper()).not.toBe(dark);
});

test("works with the keyboard only, and does not send text that an input method composes", async () => {
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
  await page.getByRole("heading", { name: "Chat about an image" }).waitFor();

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
