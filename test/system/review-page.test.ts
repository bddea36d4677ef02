/** The review page in Chromium: one and two reviewers, hostile text, keyboard only, a phone, and offline. */
import { rmSync } from "node:fs";
import { join } from "node:path";
import type { BrowserContextOptions, Page } from "playwright-core";
import { build } from "vite";
import { afterAll, beforeAll, expect, onTestFinished, test } from "vitest";
import { pageFolder } from "../../src/cli/listening.ts";
import { startReviewServer } from "../../src/server/serve.ts";
import { expectAccessible, launchBrowser, openPage } from "../helpers/browser.ts";
import { button } from "../helpers/page.ts";
import { type Reviewed, reviewedProject } from "../helpers/reviewed.ts";
import { serve } from "../helpers/serve.ts";
import { temporaryFolder, tinyModel } from "../helpers/tiny-model.ts";

const folder = temporaryFolder();
let count = 0;
let browser: Awaited<ReturnType<typeof launchBrowser>>;
beforeAll(async () => {
  browser = await launchBrowser();
  await build({ root: join(import.meta.dirname, "..", "..", "web"), logLevel: "error" });
}, 120_000);
afterAll(() => browser?.close());

/** A project of such texts, and pages of its reviewers. */
async function stage(texts: readonly string[], options: { port?: number; apiKeys?: string[] } = {}) {
  const project = reviewedProject(join(folder, String(count++)), texts);
  const start = (port = options.port ?? 0) => startReviewServer({ store: project.store, pageFolder, ...options, port });
  let server = await start();
  const { url } = server;
  onTestFinished(() => server.close(0));
  return {
    ...project,
    url,
    /** Nobody answers until the returned function is called. */
    async cut() {
      await server.close(0);
      return async () => {
        server = await start(Number(new URL(url).port));
      };
    },
    /** Opens the page under a name; at its end it must not have complained, but for what the test expects. */
    async open(name: string | undefined, how: BrowserContextOptions & { expected?: RegExp } = {}): Promise<Page> {
      const { expected = /^$/, ...context } = how;
      const { page, complaints } = await openPage(browser, url, context);
      page.setDefaultTimeout(10_000);
      onTestFinished(async () => {
        await page.context().close();
        expect(complaints.filter((complaint) => !expected.test(complaint))).toEqual([]);
      });
      if (name !== undefined) {
        await page.getByRole("textbox", { name: /Your name|你的名字/ }).fill(name);
        await page.keyboard.press("Enter");
        await image(page).waitFor();
      }
      return page;
    },
  };
}

const image = (page: Page) => page.locator(".review-image img");
const shows = (page: Page, name: string) => page.getByRole("heading", { name, exact: true }).waitFor();
const words = (page: Page) => page.locator(".review-words");
const clean = async (page: Page) => {
  await page.getByText("Clean text").click();
  return words(page).textContent();
};
const said = ({ store }: Reviewed, id: number) =>
  store.entry(id)?.persons.map(({ author, decision }) => `${author} ${decision}`) ?? [];
const current = ({ store }: Reviewed, id: number) => store.entry(id)?.current?.text;

test("enter a name, keep, drop, edit, undo, filter, compare versions, and reload", async () => {
  const project = await stage(["A cat on a sofa.", "A cup.", "A house.", "I apologize for that.", "A rocket."]);
  const { store } = project;
  const ruled = store.entry(4)?.current?.id ?? 0;
  const reasons = [{ rule: "apology", message: "I apologize" }];
  store.addVerdict({ version: ruled, decision: "drop", judge: "rules", author: "rules", reasons });
  const page = await project.open(undefined);
  await page.getByRole("heading", { name: "Who is reviewing?" }).waitFor();
  await expectAccessible(page);
  // There is no model and no run to show.
  expect(await page.getByRole("link", { name: "Chat" }).count()).toBe(0);
  await page.getByRole("textbox", { name: "Your name" }).fill("Ada");
  await button(page, "Start").click();
  await shows(page, "1.jpg");
  await image(page).waitFor();
  expect(await page.evaluate("document.querySelector('.review-image img').naturalWidth")).toBeGreaterThan(99);
  await page.getByText("0 of 4 reviewed").waitFor();
  expect(await words(page).locator("del").count()).toBe(1);
  expect(await clean(page)).toBe("A cat on a sofa.");
  await expectAccessible(page);

  await button(page, "Keep").click();
  await shows(page, "2.jpg");
  await button(page, "Drop").click();
  await shows(page, "3.jpg");
  await page.getByText("2 of 4 reviewed").waitFor();
  expect([said(project, 1), said(project, 2)]).toEqual([["Ada keep"], ["Ada drop"]]);
  await page.reload();
  await shows(page, "3.jpg");
  await button(page, "Edit").click();
  const field = page.getByRole("textbox", { name: "Image text" });
  await expect.poll(() => field.inputValue()).toBe("A house.");
  await expectAccessible(page);
  await field.fill("A red house.");
  await button(page, "Save").click();
  await page.getByText("Changes", { exact: true }).click();
  await expect.poll(() => words(page).locator("ins").allTextContents()).toEqual(["[added: red ]"]);
  await page.getByText("2 earlier versions").click();
  await expectAccessible(page);
  await button(page, "Compare").click();
  expect(await words(page).locator("del").count()).toBe(1);
  expect(current(project, 3)).toBe("A red house.");
  await button(page, "Undo").click();
  await page.getByText("Undone.").waitFor();
  expect(current(project, 3)).toBe("A house.");
  await button(page, "Undo").click();
  await shows(page, "2.jpg");
  await expect.poll(() => said(project, 2)).toEqual([]);

  await page.getByLabel("Pairs", { exact: true }).selectOption("ruled");
  await shows(page, "4.jpg");
  await page.getByText("Dropped by rules").waitFor();
  expect(await page.locator(".reasons").textContent()).toContain("apology I apologize");
  await page.getByLabel("Rule").selectOption("apology");
  await shows(page, "4.jpg");
  await expectAccessible(page);
  await page.keyboard.press("k");
  await page.getByText("No pairs in this filter.").waitFor();
  await expect.poll(() => said(project, 4)).toEqual(["Ada keep"]);
  await page.getByLabel("Pairs", { exact: true }).selectOption("kept");
  await shows(page, "1.jpg");
  await page
    .getByRole("navigation", { name: "Pairs in this filter" })
    .getByRole("button", { name: "kept 4.jpg" })
    .click();
  await shows(page, "4.jpg");
  await page.keyboard.press("ArrowRight");
  await page.getByText("End of the list.").waitFor();
  await expectAccessible(page);
});

test("keyboard only: typing decides nothing, and a held key decides once", async () => {
  const project = await stage(["A cat.", "A cup.", "A house.", "A tree.", "A car.", "A dog."]);
  const page = await project.open(undefined);
  await page.keyboard.type("Keddu");
  await page.keyboard.press("Enter");
  await shows(page, "1.jpg");
  await page.keyboard.press("e");
  await page.keyboard.press("Control+End");
  await page.keyboard.type(" keddu");
  await page.keyboard.press("Control+Enter");
  await expect.poll(() => current(project, 1)).toBe("A cat. keddu");
  await page.keyboard.press("k");
  await shows(page, "2.jpg");
  await page.keyboard.press("e");
  await page.keyboard.type("Lost? ");
  await page.keyboard.press("Escape");
  expect(await clean(page)).toBe("A cup.");
  await button(page, "Restore").click();
  expect(await page.getByRole("textbox").inputValue()).toBe("Lost? A cup.");
  await page.keyboard.press("Escape");
  await page.keyboard.press("d");
  await shows(page, "3.jpg");
  await page.keyboard.press("ArrowRight");
  await shows(page, "4.jpg");
  await page.keyboard.press("ArrowLeft");
  await shows(page, "3.jpg");
  await page.keyboard.press("ArrowLeft");
  await shows(page, "2.jpg");
  await page.getByText("Keddu: drop").waitFor();
  await page.keyboard.press("u");
  await expect.poll(() => said(project, 2)).toEqual([]);
  await page.keyboard.down("k");
  for (let i = 0; i < 5; i++) await page.keyboard.down("k");
  await page.keyboard.up("k");
  await shows(page, "3.jpg");
  await expect.poll(() => said(project, 2)).toEqual(["Keddu keep"]);
  expect(said(project, 3)).toEqual([]);
  await page.keyboard.press("Control+d");
  await page.keyboard.press("Alt+k");
  expect(said(project, 3)).toEqual([]);
});

test("two reviewers see different pairs; a conflict shows both texts, and nothing is lost", async () => {
  const project = await stage(["A cat.", "A cup.", "A house.", "A tree.", "A car.", "A dog."]);
  const expected = /409/;
  const ada = await project.open("Ada", { expected });
  await shows(ada, "1.jpg");
  const ben = await project.open("Ben", { expected });
  // Ada's page has fetched two more.
  await shows(ben, "4.jpg");
  await ben.getByRole("button", { name: "not reviewed 1.jpg" }).click();
  await shows(ben, "1.jpg");
  await ada.keyboard.press("e");
  await ada.getByRole("textbox").fill("A cat in a box.");
  await ben.keyboard.press("e");
  await ben.getByRole("textbox").fill("A grey cat.");
  await ben.keyboard.press("Control+Enter");
  await expect.poll(() => current(project, 1)).toBe("A grey cat.");
  await ada.keyboard.press("Control+Enter");
  const dialog = ada.getByRole("dialog", { name: "The text of 1.jpg has changed" });
  await dialog.getByText("Ben saved a different text while you were editing.").waitFor();
  await expectAccessible(ada);
  expect(
    await dialog.evaluate(
      "document.querySelector('dialog').scrollWidth - document.querySelector('dialog').clientWidth",
    ),
  ).toBe(0);
  expect(await dialog.getByText("A cat in a box.", { exact: true }).count()).toBe(1);
  expect(current(project, 1)).toBe("A grey cat.");
  await button(dialog, "Edit").click();
  await expect.poll(() => ada.getByRole("textbox").inputValue()).toBe("A cat in a box.");
  await ada.getByRole("textbox").fill("A grey cat in a box.");
  await ada.keyboard.press("Control+Enter");
  await expect.poll(() => current(project, 1)).toBe("A grey cat in a box.");
  expect(project.store.versions(1).map(({ text }) => text)).toContain("A grey cat.");

  // Ben has not seen it yet, and keeps what he sees.
  await ben.keyboard.press("k");
  const bens = ben.getByRole("dialog");
  await bens.getByText("Ada has changed the text that you kept.").waitFor();
  await expectAccessible(ben);
  await button(bens, "Keep theirs").click();
  await expect.poll(() => said(project, 1)).toEqual(["Ben keep"]);
  await ada.keyboard.press("d");
  await expect.poll(() => said(project, 1)).toEqual(["Ben keep", "Ada drop"]);
  await ben.getByLabel("Pairs", { exact: true }).selectOption("disagreement");
  await shows(ben, "1.jpg");
  await ben.getByText("Reviewers disagree.").waitFor();
  await ben.getByText("Ada: drop").waitFor();
  await expectAccessible(ben);
});

test("shows a malicious text without executing it", async () => {
  const text = `<script>document.title="owned"</script><img src=x onerror="document.title='owned'"> \u202Egnp.exe\u202C ${"w".repeat(3000)}`;
  const project = await stage([text, "A cup."]);
  const name = `<b>Ada</b>\u202E`;
  const page = await project.open(name, { viewport: { width: 400, height: 800 } });
  await words(page).getByText(`<script>document.title="owned"</script>`).first().waitFor();
  await words(page).getByText("U+202E").first().waitFor();
  expect(await clean(page)).toContain(`onerror="document.title='owned'"> U+202Egnp.exeU+202C`);
  expect(await page.locator(".review-text img, .review-text script").count()).toBe(0);
  await expectAccessible(page);
  await page.keyboard.press("e");
  await page.keyboard.type("x");
  await page.keyboard.press("Control+Enter");
  await expect.poll(() => current(project, 1) === `x${text}`).toBe(true);
  await page.keyboard.press("k");
  await shows(page, "2.jpg");
  await page.keyboard.press("ArrowLeft");
  await page.getByText("<b>Ada</b>[U+202E]: keep").waitFor();
  expect(await page.title()).toBe("Review · minigpt4");
  await expectAccessible(page);
});

test.each(["light", "dark"] as const)(
  "a phone, %s: the main actions are within reach of a thumb",
  async (colorScheme) => {
    const project = await stage(["A cat on a sofa. ".repeat(60), "A cup.", "A house."]);
    const phone = { viewport: { width: 360, height: 640 }, isMobile: true, hasTouch: true, colorScheme };
    const page = await project.open("Ada", phone);
    await expectAccessible(page);
    const box = await button(page, "Keep").boundingBox();
    expect(box?.height).toBeGreaterThanOrEqual(48);
    expect((box?.y ?? 0) + (box?.height ?? 0)).toBeLessThanOrEqual(640);
    await button(page, "Keep").tap();
    await shows(page, "2.jpg");
    await button(page, "Edit").tap();
    await expectAccessible(page);
    await button(page, "Cancel").tap();
    await button(page, "Menu").tap();
    await page.getByRole("dialog").getByRole("button", { name: "3.jpg" }).tap();
    await shows(page, "3.jpg");
    await expectAccessible(page);
    await expect.poll(() => said(project, 1)).toEqual(["Ada keep"]);
  },
);

test("keeps decisions while the server is down, and sends them when it is back", async () => {
  const project = await stage(["A cat.", "A cup.", "A house.", "A tree."]);
  const page = await project.open("Ada", { expected: /ERR_CONNECTION|Failed to load resource/ });
  // The next pair is there before it is wanted.
  await expect
    .poll(() => page.evaluate("performance.getEntriesByName(location.origin + '/api/review/images/3').length"))
    .toBe(1);
  const back = await project.cut();
  await page.keyboard.press("k");
  await shows(page, "2.jpg");
  await page.keyboard.press("d");
  await page.getByText("2 decisions not sent yet.").waitFor();
  await expectAccessible(page);
  expect(said(project, 1)).toEqual([]);
  await back();
  await expect
    .poll(() => [said(project, 1), said(project, 2)], { timeout: 10_000 })
    .toEqual([["Ada keep"], ["Ada drop"]]);
  await expect.poll(() => page.locator(".unsent").count()).toBe(0);
  await shows(page, "3.jpg");
});

test("a missing image, a server with API keys, Chinese", async () => {
  const project = await stage(["A cat.", "A cup."], { apiKeys: ["open-sesame-and-close"] });
  rmSync(join(folder, String(count - 1), "2.jpg"));
  const page = await project.open(undefined, { locale: "zh-CN", expected: /401|404/ });
  await page.getByRole("textbox", { name: "你的名字" }).fill("李雷");
  await page.keyboard.press("Enter");
  const key = page.getByLabel("API 密钥");
  await key.fill("wrong");
  await page.keyboard.press("Enter");
  await page.getByText("API 密钥无效。").waitFor();
  await expectAccessible(page);
  await key.fill("open-sesame-and-close");
  await page.keyboard.press("Enter");
  await image(page).waitFor();
  await expectAccessible(page);
  await button(page, "保留").click();
  await page.getByText(/无法显示图片/).waitFor();
  await expectAccessible(page);
  expect(said(project, 1)).toEqual(["李雷 keep"]);
});

test("next to a model, the review is a section of the page", async () => {
  const { path } = await stage(["A cat."]);
  const both = await serve(tinyModel(folder), { flags: ["--review", path] });
  onTestFinished(() => both.kill());
  const { page, complaints } = await openPage(browser, both.url);
  await page.getByRole("link", { name: "Review" }).click();
  await page.getByRole("textbox", { name: "Your name" }).fill("Ada");
  await page.keyboard.press("Enter");
  await shows(page, "1.jpg");
  await page.getByRole("link", { name: "Chat" }).click();
  await page.getByLabel("Your question").waitFor();
  await page.getByRole("link", { name: "Review" }).click();
  await shows(page, "1.jpg");
  expect(complaints).toEqual([]);
  await page.context().close();
});
