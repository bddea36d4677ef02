import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { ChatServer, polished, said } from "../../helpers/chat-server.ts";
import { minigpt4, outcome, start } from "../../helpers/cli-command.ts";
import { described, openProject } from "../../helpers/curation-projects.ts";
import { until } from "../../helpers/running-server.ts";
import { temporaryFolder } from "../../helpers/tiny-model.ts";

const folder = temporaryFolder();
const nobody = { OPENAI_API_KEY: "", OPENAI_BASE_URL: "" };

function project(name: string, texts: number) {
  const store = openProject(folder, name);
  for (let i = 0; i < texts; i++) described(store, `a cat  number ${i}`, i);
  return { store, path: join(folder, name) };
}

test("dry run, run and custom prompt; API key and base URL from the environment", async () => {
  const { store, path } = project("run.db", 5);
  const server = await ChatServer.start();
  const prices = ["--price-input", "0.15", "--price-output", "0.6"];
  const dry = await minigpt4(["curate", "polish", "--project", path, "--dry-run", ...prices], "", nobody);
  expect(dry.stdout).toMatch(/texts to polish +5\n/);
  expect(dry.stdout).toMatch(/tokens, estimated +4\d\d prompt, 20 output\ncost, estimated +0\.0000\d+\n/);
  expect(server.asked).toHaveLength(0);

  const key = "sk-1234567890";
  const env = { OPENAI_BASE_URL: server.url, MY_KEY: `${key}\n`, OPENAI_API_KEY: "sk-the-other-one" };
  const args = ["curate", "polish", "--project", path, "--api-key-env", "MY_KEY", "--limit", "3", ...prices];
  const run = await minigpt4(args, "", env);
  expect(run.stdout).toMatch(/^polished +3 of 3, by only\ntokens +300 prompt, 30 output\ncost +0\.000063\n/);
  expect(run.stderr).toMatch(/texts polished 3 of 3 .* 330 tokens, cost 0\.000063\n$/);
  expect(server.asked.map(({ headers }) => headers.authorization)).toEqual(Array(3).fill(`Bearer ${key}`));
  expect(run.stdout + run.stderr).not.toContain("sk-");

  const prompt = join(folder, "prompt.txt");
  writeFileSync(prompt, "Tidy up:\n\n{paragraph}\n");
  const other = await minigpt4(["curate", "polish", "--project", path, "--prompt-file", prompt, "--json"], "", env);
  expect(JSON.parse(other.stdout)).toMatchObject({ model: "only", polished: 2, texts: 2 });
  expect(server.asked.map(({ body }) => body.messages)).toContainEqual([
    { role: "user", content: "Tidy up:\n\na cat  number 4" },
  ]);
  expect(store.entries().map(({ current }) => current?.text)).toEqual(
    [0, 1, 2, 3, 4].map((i) => polished(`a cat  number ${i}`)),
  );
});

test("reports errors in one line", async () => {
  const { path } = project("wrong.db", 20);
  const polish = (...args: string[]) => minigpt4(["curate", "polish", "--project", path, ...args], "", nobody);
  expect((await polish()).stderr).toMatch(/^error: The service that polishes is missing; pass --base-url.*\n$/);
  const server = await ChatServer.start(() => ({ status: 401, body: { error: { message: "who are\n you?" } } }));
  server.models = { data: [{ id: "a" }, { id: "b\u001b[2J" }] };
  const several = await polish("--base-url", server.url);
  expect(several.stderr).toBe(`error: ${server.url} has 2 models (a, b\\u001b[2J); select one with --model\n`);
  const refused = await polish("--base-url", server.url, "--model", "a");
  expect(refused).toMatchObject({ code: 1, stdout: expect.stringMatching(/^polished +0 of 20/) });
  expect(refused.stderr).toBe(
    `error: ${server.url} requires an API key (401: who are you?); set the environment variable OPENAI_API_KEY\n`,
  );
  const gone = await minigpt4(["curate", "polish", "--project", join(folder, "gone.db"), "--base-url", server.url]);
  expect(gone.stderr).toMatch(/^error: .*gone\.db does not exist/);
});

test.skipIf(process.platform === "win32")("Ctrl-C keeps finished texts, and the next run continues", async () => {
  const { store, path } = project("interrupted.db", 12);
  const server = await ChatServer.start(({ text, before }) => ({
    ...said(polished(text)),
    after: before < 6 ? 1 : 2000,
  }));
  const child = start(["curate", "polish", "--project", path, "--base-url", server.url, "--model", "m"], nobody);
  const ended = outcome(child);
  await until(() => server.asked.length >= 9, 20_000);
  child.kill("SIGINT");
  const { code, stdout } = await ended;
  expect(code).toBe(130);
  expect(stdout).toMatch(/^polished +6 of 12, by m\n/);
  expect(store.entries().filter(({ current }) => current?.kind === "polished")).toHaveLength(6);
});
