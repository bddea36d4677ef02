/** `minigpt4 curate review`, as a user starts it. */
import { join } from "node:path";
import { expect, test } from "vitest";
import { minigpt4, outcome, start } from "../../helpers/cli-command.ts";
import { reviewedProject } from "../../helpers/reviewed.ts";
import { temporaryFolder } from "../../helpers/tiny-model.ts";

const folder = temporaryFolder();

test("prints the address, serves without a model, and stops on Ctrl-C", async () => {
  const { path, store } = reviewedProject(join(folder, "one"), ["A cat."]);
  const child = start(["curate", "review", "--project", path, "--port", "0"]);
  const ended = outcome(child);
  const url = await new Promise<string>((resolve, reject) => {
    child.stdout?.on("data", (text) => {
      const found = /at (http:\S+)\/#\/review\. Press Ctrl-C/.exec(text)?.[1];
      if (found) resolve(found);
    });
    void ended.then(({ stderr }) => reject(new Error(stderr)));
  });
  expect(await (await fetch(`${url}/health`)).json()).toEqual({ status: "ok", review: true });
  const response = await fetch(`${url}/api/review/entries/1/verdict`, {
    method: "POST",
    body: JSON.stringify({ reviewer: "Ada", version: 2, decision: "keep" }),
  });
  expect(response.status).toBe(200);
  expect(store.entry(1)?.persons).toMatchObject([{ author: "Ada", decision: "keep" }]);
  child.kill("SIGINT");
  expect(await ended).toMatchObject({ code: 0, stderr: "" });
});

test("reports a missing or invalid project in one line", async () => {
  const missing = join(folder, "none.db");
  const asked = await minigpt4(["curate", "review", "--project", missing, "--port", "0"]);
  expect(asked).toMatchObject({ code: 1, stderr: expect.stringMatching(/^error: .*none\.db does not exist.*\n$/) });
  const beside = await minigpt4(["serve", "--review", import.meta.filename, "--port", "0"]);
  expect(beside).toMatchObject({ code: 1, stderr: expect.stringMatching(/^error: .*is not a curation project.*\n$/) });
});
