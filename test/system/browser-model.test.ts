/** An exported model in Chromium, from a static host. */
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Browser, Page } from "playwright-core";
import sharp from "sharp";
import { build } from "vite";
import { afterAll, beforeAll, expect, onTestFinished, test } from "vitest";
import { exportWeb } from "../../src/convert/export-web.ts";
import { loadEngine } from "../../src/engine/load-engine.ts";
import { expectAccessible, launchBrowser, openPage } from "../helpers/browser.ts";
import { image } from "../helpers/cli-command.ts";
import { answered, button, field, written } from "../helpers/page.ts";
import { hostFolder, type StaticHost } from "../helpers/static-host.ts";
import { temporaryFolder, tinyModel } from "../helpers/tiny-model.ts";

const root = join(import.meta.dirname, "..", "..");
const folder = temporaryFolder();
const model = tinyModel(folder);
const site = join(folder, "site");
const png = await sharp(image("cat.jpg")).resize(300, 200).png().toBuffer();
let browser: Browser;
let host: StaticHost;

beforeAll(async () => {
  await build({ root: join(root, "web"), logLevel: "error" });
  await exportWeb(model, site, { page: join(root, "dist", "web"), name: "tiny", quantization: "float32" });
  host = await hostFolder(site);
  browser = await launchBrowser();
}, 120_000);
afterAll(async () => {
  await browser?.close();
  await host?.close();
});

/** Opens the page in a profile of its own; it must not complain, but for what the test expects. */
async function open(url = host.url, expected = /^$/): Promise<Page> {
  const { page, complaints } = await openPage(browser, url);
  page.setDefaultTimeout(30_000);
  onTestFinished(async () => {
    await page.context().close();
    expect(complaints.filter((complaint) => !expected.test(complaint))).toEqual([]);
  });
  return page;
}

const ready = (page: Page, device = "tiny · WebAssembly") => page.getByText(device, { exact: true }).waitFor();

async function describePng(page: Page): Promise<string> {
  await page
    .locator("form.composer input[type=file]")
    .first()
    .setInputFiles({ name: "cat.png", mimeType: "image/png", buffer: png });
  await button(page, "Describe").click();
  await answered(page);
  return written(page);
}

async function set(page: Page, settings: Readonly<Record<string, number>>): Promise<void> {
  await page.evaluate(`localStorage.setItem("minigpt4.settings", '${JSON.stringify(settings)}')`);
  await page.reload();
  await ready(page);
}

const weightFiles = () => host.asked().filter((path) => path.endsWith(".bin"));

test("describes an image with the same tokens as Node; the second visit downloads no weights", async () => {
  const engine = await loadEngine(model, "tiny");
  let expected = "";
  let tokens = 0;
  for await (const event of engine.generate({ turns: "describe", images: [png], maxNewTokens: 250, temperature: 0 })) {
    if (event.kind === "text") expected += event.text;
    if (event.kind === "end") tokens = event.tokens;
  }
  await engine.close();
  expect(tokens).toBeGreaterThanOrEqual(8);

  const page = await open();
  await set(page, { maxNewTokens: 250 });
  await expectAccessible(page);
  // What the page shows has marks of emphasis taken out, so the text itself is compared.
  await describePng(page);
  const exported = await storedAnswer(page);
  expect(exported).toEqual({ text: expected.trim(), tokens });

  expect(new Set(weightFiles())).toEqual(new Set(["/tokenizer.bin", "/weights-0.bin"]));
  await page.reload();
  await ready(page);
  expect(weightFiles()).toEqual([]);
});

/** The last answer as the page keeps it. */
function storedAnswer(page: Page): Promise<{ text: string; tokens: number }> {
  return page.evaluate(`new Promise(async (resolve, reject) => {
    const [{ name }] = await indexedDB.databases();
    const opening = indexedDB.open(name);
    opening.onerror = reject;
    opening.onsuccess = () => {
      const all = opening.result.transaction("chats").objectStore("chats").getAll();
      all.onerror = reject;
      all.onsuccess = () => {
        const { text, timing } = all.result.at(-1).messages.at(-1);
        resolve({ text, tokens: timing.tokens });
      };
    };
  })`);
}

test("stops an answer, and answers the next question", async () => {
  const page = await open();
  // A search takes this model, which writes at once, some seconds.
  await set(page, { numBeams: 8, maxNewTokens: 250 });
  await field(page).fill("Tell me everything.");
  await page.keyboard.press("Enter");
  await button(page, "Stop").click();
  await page.getByText("Stopped.").first().waitFor();
  await field(page).fill("And now?");
  await page.keyboard.press("Enter");
  await answered(page);
});

test("uses several threads if the page is cross-origin isolated", async () => {
  const isolated = await hostFolder(site, {
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-embedder-policy": "require-corp",
  });
  onTestFinished(() => isolated.close());
  const page = await open(isolated.url);
  await page.getByText(/^tiny · WebAssembly, \d threads$/).waitFor();
  expect((await describePng(page)).length).toBeGreaterThan(0);
});

test("names a damaged or missing file, and caches nothing of it", async () => {
  const path = join(site, "weights-0.bin");
  const intact = readFileSync(path);
  const damaged = Buffer.from(intact);
  damaged[damaged.length >> 1] = (damaged[damaged.length >> 1] as number) ^ 1;
  writeFileSync(path, damaged);
  onTestFinished(() => writeFileSync(path, intact));
  const page = await open(host.url, /404/);
  await page.getByText("weights-0.bin is damaged: its SHA-256 differs from the one in model.json").waitFor();
  await expectAccessible(page);

  rmSync(path);
  await button(page, "Try again").click();
  await page.getByText("weights-0.bin is missing: the host responded 404").waitFor();

  writeFileSync(path, intact);
  await button(page, "Try again").click();
  await ready(page);
});
