/** The web page in Chromium, against the real server with a tiny model. */
import { readFileSync } from "node:fs";
import sharp from "sharp";
import { expect, test } from "vitest";
import { expectAccessible } from "../helpers/browser.ts";
import { image } from "../helpers/cli-command.ts";
import {
  answered,
  answers,
  bring,
  button,
  field,
  questions,
  sentImages,
  setStage,
  slowAnswers,
  written,
} from "../helpers/page.ts";

const { open } = setStage();

test("describes an example image, answers a question about it, and describes it again", async () => {
  const page = await open();
  await expectAccessible(page);
  await button(page, "cat: Chelsea the cat").click();
  await page.getByRole("img", { name: "cat.jpg" }).waitFor();
  await expectAccessible(page);

  const sent = sentImages(page);
  await button(page, "Describe").click();
  await answered(page);
  // A small image is sent unchanged.
  expect((await sent)[0]?.equals(readFileSync(image("cat.jpg")))).toBe(true);
  const first = await written(page);
  expect(first.length).toBeGreaterThan(0);
  await expectAccessible(page);

  await field(page).fill("What **is** <i>it</i>?");
  await page.keyboard.press("Enter");
  await answered(page);
  expect(await questions(page).last().textContent()).toContain("What **is** <i>it</i>?");
  expect(await answers(page).count()).toBe(2);

  const before = await written(page);
  await button(page, "Regenerate").click();
  await page.getByText("At temperature 0, the same question always gets the same answer.").waitFor();
  await expectAccessible(page);
  await answered(page);
  expect(await written(page)).toBe(before);
  expect(await answers(page).count()).toBe(2);

  await questions(page).first().hover();
  await button(questions(page).first(), "Edit question").click();
  await expectAccessible(page);
  await page.getByRole("textbox", { name: "Edit question" }).fill("Is it a dog?");
  await button(page, "Save and send").click();
  await answered(page);
  expect(await questions(page).allTextContents()).toEqual([expect.stringContaining("Is it a dog?")]);
  await page.getByRole("img", { name: "cat.jpg" }).waitFor();
});

test("streams an answer, announces it once to screen readers, and stops it", async () => {
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
  await expect.poll(() => page.evaluate("told")).toEqual(["Generating an answer.", "Stopped."]);

  // The server has stopped, too: the next answer starts immediately.
  await button(page, "Regenerate").click();
  await page.locator(".answer-text.writing").waitFor();
  await button(page, "Stop").click();
  await answered(page);
  await expectAccessible(page);

  await button(page, "Regenerate").click();
  await page.locator(".answer-text.writing").waitFor();
  await expectAccessible(page);
});

test("rotates and scales large photos; accepts chosen, dropped and pasted images", async () => {
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
  await bring(page, "drop", { name: "notes.txt", type: "text/plain", bytes: Buffer.from("no image") });
  await page.getByText("notes.txt is not an image.").waitFor();
  await bring(page, "drop", { name: "broken.png", type: "image/png", bytes: Buffer.from("no image") });
  await page.getByText(/broken.png could not be read/).waitFor();

  const sent = sentImages(page);
  await button(page, "Describe").click();
  const [large, small] = await sent;
  expect(await sharp(large).metadata()).toMatchObject({ format: "jpeg", width: 683, height: 1024 });
  expect((await sharp(large).metadata()).orientation ?? 1).toBe(1);
  expect(small?.equals(png)).toBe(true);
  await answered(page);
  expect(await questions(page).first().textContent()).toContain("Describe these images.");

  await bring(page, "paste", { name: "pasted.png", type: "image/png", bytes: png });
  await page.getByRole("img", { name: "pasted.png" }).waitFor();
  await field(page).fill("And this?");
  const all = sentImages(page);
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

test("saves and sends the settings", async () => {
  const page = await open();
  await button(page, "Settings").click();
  const dialog = page.getByRole("dialog", { name: "Settings" });
  await expectAccessible(page);
  await dialog.getByLabel("Temperature").fill("0.8");
  await dialog.getByLabel("Top-p").fill("0.5");
  await dialog.getByLabel("Seed").fill("nonsense");
  await dialog.getByText("Enter a whole number from 0 to 4294967295.").waitFor();
  await dialog.getByLabel("Seed").fill("7");
  await dialog.getByLabel("Max. length").fill("20");
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
  await page.getByText("The answer reached the maximum length.").waitFor();
  const first = await written(page);
  await button(page, "Regenerate").click();
  await answered(page);
  expect(await written(page)).toBe(first);

  await button(page, "Settings").click();
  await dialog.getByLabel("Beams").fill("3");
  expect(await dialog.getByLabel("Temperature").isDisabled()).toBe(true);
  await button(dialog, "Reset to defaults").click();
  expect(await dialog.getByLabel("System prompt").inputValue()).toBe("");
  expect(await dialog.getByLabel("Temperature").inputValue()).toBe("0");
});
