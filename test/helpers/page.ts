/** What tests of the page do with it, in the words of a user. */
import { join } from "node:path";
import type { Browser, BrowserContextOptions, Locator, Page } from "playwright-core";
import { build } from "vite";
import { afterAll, beforeAll, expect, onTestFinished } from "vitest";
import { launchBrowser, openPage } from "./browser.ts";
import { type ServeProcess, serve } from "./serve.ts";
import { temporaryFolder, tinyModel } from "./tiny-model.ts";

/** A browser and a server with a tiny model for the tests of a file. */
export interface Stage {
  readonly folder: string;
  readonly model: string;
  readonly url: () => string;
  /** Opens the page for a test; at its end it must not have complained, but for what the test expects. */
  open(options?: BrowserContextOptions, how?: { readonly url?: string; readonly expected?: RegExp }): Promise<Page>;
}

/** Builds the page, and starts what the tests of a file need. */
export function setStage(): Stage {
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
  return {
    folder,
    model,
    url: () => server.url,
    async open(options = {}, { url = server.url, expected = /^$/ } = {}) {
      const { page, complaints } = await openPage(browser, url, options);
      page.setDefaultTimeout(20_000);
      onTestFinished(async () => {
        await page.context().close();
        expect(complaints.filter((complaint) => !expected.test(complaint))).toEqual([]);
      });
      return page;
    },
  };
}

export const button = (at: Page | Locator, name: string | RegExp) => at.getByRole("button", { name, exact: true });
export const field = (page: Page) => page.getByLabel("Your question");
export const answers = (page: Page) => page.getByRole("region", { name: "Model" });
export const questions = (page: Page) => page.getByRole("region", { name: "You" });
export const written = async (page: Page) => (await answers(page).last().locator(".answer-text").textContent()) ?? "";

/** Waits until an answer is complete. */
export async function answered(page: Page): Promise<void> {
  await button(page, "Regenerate").waitFor();
}

export async function describeExample(page: Page): Promise<void> {
  await button(page, "cat: Chelsea the cat").click();
  await button(page, "Describe").click();
  await answered(page);
}

/** Makes answers as long as can be set, and the network slow, so that there is time to do something while one is written. */
export async function slowAnswers(page: Page): Promise<void> {
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

export async function chooseFromMenu(page: Page | Locator, menu: string | RegExp, item: string): Promise<void> {
  const opener = button(page, menu).first();
  await opener.focus();
  await opener.click();
  await page.getByRole("menuitem", { name: item }).click();
}

/** Drops or pastes a file, as far as a page can tell. */
export async function bring(
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

/** The images of the next question that is sent, as the server gets them. */
export function sentImages(page: Page): Promise<Buffer[]> {
  return page.waitForRequest("**/v1/chat/completions").then((request) => {
    const urls = [...(request.postData() ?? "").matchAll(/data:image\/\w+;base64,([\w+/=]+)/g)];
    return urls.map(([, base64 = ""]) => Buffer.from(base64, "base64"));
  });
}
