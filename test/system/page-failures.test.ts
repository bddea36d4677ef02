/** The web page with a server that is busy, requires a key, or stops. */
import { readFileSync } from "node:fs";
import { expect, onTestFinished, test } from "vitest";
import { expectAccessible } from "../helpers/browser.ts";
import { answered, answers, button, chooseFromMenu, field, setStage, slowAnswers, written } from "../helpers/page.ts";
import { serve } from "../helpers/serve.ts";
import { slowLine } from "../helpers/slow-line.ts";

const { model, open } = setStage();

test("retries a busy server after its Retry-After time", async () => {
  const page = await open({}, { expected: /429/ });
  let refusals = 0;
  await page.route("**/v1/chat/completions", (route) => {
    if (refusals++ > 0) return route.continue();
    const body = JSON.stringify({ error: { message: "All places are taken" } });
    return route.fulfill({ status: 429, headers: { "retry-after": "2" }, contentType: "application/json", body });
  });
  await field(page).fill("Hello");
  await page.keyboard.press("Enter");
  await page.getByText(/The model is busy. Retrying in [12] s/).waitFor();
  await expectAccessible(page);
  await answered(page);
  expect(refusals).toBe(2);
});

test("asks for the API key, and neither stores nor exports it", async () => {
  const locked = await serve(model, { env: { MINIGPT4_API_KEYS: "open-sesame-and-close" } });
  onTestFinished(() => locked.kill());
  const page = await open({}, { url: locked.url, expected: /401/ });
  const dialog = page.getByRole("dialog", { name: "API key" });
  await dialog.waitFor();
  await expectAccessible(page);
  await dialog.getByLabel("API key").fill("wrong");
  await page.keyboard.press("Enter");
  await dialog.getByText("Invalid API key.").waitFor();
  await dialog.getByLabel("API key").fill("open-sesame-and-close");
  await page.keyboard.press("Enter");
  await expect.poll(() => dialog.count()).toBe(0);
  await field(page).fill("Hello");
  await page.keyboard.press("Enter");
  await answered(page);
  const [json] = await Promise.all([
    page.waitForEvent("download"),
    chooseFromMenu(page, "Options for Chats", "Export all"),
  ]);
  expect(readFileSync((await json.path()) ?? "", "utf8")).not.toContain("open-sesame-and-close");
  expect(await page.evaluate("JSON.stringify(localStorage)")).not.toContain("open-sesame-and-close");
});

test("keeps a partial answer if the server dies, and retries when it is back", async () => {
  const mortal = await serve(model);
  onTestFinished(() => mortal.kill());
  const line = await slowLine(mortal.port);
  const page = await open({}, { url: line.url, expected: /ERR_|Failed to load resource/ });
  await slowAnswers(page);
  line.slowDown();
  await field(page).fill("Talk.");
  await page.keyboard.press("Enter");
  await page.locator(".answer-text.writing").waitFor();
  while ((await written(page)).length < 20);
  await mortal.kill();
  line.cut();
  await answers(page).getByText("The answer was interrupted.").waitFor();
  expect((await written(page)).length).toBeGreaterThanOrEqual(20);
  await expectAccessible(page);
  await button(answers(page).last(), "Try again").click();
  await answers(page).last().getByText("The question could not be sent.").waitFor();
  await page.locator(".foot").getByText("The server is not responding.").waitFor();
  await expectAccessible(page);
  const back = await serve(model, { port: mortal.port });
  onTestFinished(() => back.kill());
  await page.getByText("Retrying…").waitFor({ state: "hidden" });
  await button(answers(page).last(), "Try again").click();
  await page.locator(".answer-text.writing").waitFor();
  await button(page, "Stop").click();
  await answered(page);
});
