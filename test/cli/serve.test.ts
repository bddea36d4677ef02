import { once } from "node:events";
import { writeFileSync } from "node:fs";
import { request } from "node:http";
import { join } from "node:path";
import { expect, test } from "vitest";
import { minigpt4, outcome, start } from "../helpers/cli-command.ts";
import { serve as serveApp, tinyEngine } from "../helpers/running-server.ts";
import { temporaryFolder, tinyModel } from "../helpers/tiny-model.ts";

const folder = temporaryFolder();
const model = tinyModel(folder);

/** Starts the command, and waits for the address that it prints. */
async function serve(args: readonly string[], env: NodeJS.ProcessEnv = {}) {
  const child = start(["serve", "--model", model, "--port", "0", ...args], env);
  const ended = outcome(child);
  const url = await new Promise<string>((resolve, reject) => {
    let printed = "";
    child.stdout?.on("data", (text) => {
      printed += text;
      const found = /Serving .* at (http:\S+) /.exec(printed)?.[1];
      if (found) resolve(found);
    });
    void ended.then(({ stderr }) => reject(new Error(stderr)));
  });
  return { child, url, ended };
}

test("prints its address; Ctrl-C waits for the running request and exits with 0", async () => {
  const { child, url, ended } = await serve(["--quiet"]);
  expect(await (await fetch(`${url}/health`)).json()).toEqual({ status: "ok", model: "tiny" });
  const response = await fetch(`${url}/v1/chat/completions`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ stream: true, max_tokens: 200, messages: [{ role: "user", content: "Tell a story" }] }),
  });
  child.kill("SIGINT");
  const text = await response.text();
  expect(text).toMatch(/"finish_reason":"(length|stop)"/);
  expect(text).toMatch(/data: \[DONE\]\n\n$/);
  const { code, stderr } = await ended;
  expect(code).toBe(0);
  expect(stderr).toBe("Waiting for running requests. Press Ctrl-C again to exit immediately.\n");
});

test("requires the API keys of the environment and a file; SIGTERM stops it", async () => {
  const file = join(folder, "keys.txt");
  writeFileSync(file, "# Ada\nada-0123456789abcdef\n");
  const { child, url, ended } = await serve(["--api-keys-file", file], { MINIGPT4_API_KEYS: "bob-0123456789abcdef" });
  const status = async (key: string) =>
    (await fetch(`${url}/v1/models`, { headers: { authorization: `Bearer ${key}` } })).status;
  expect(await status("ada-0123456789abcdef")).toBe(200);
  expect(await status("bob-0123456789abcdef")).toBe(200);
  expect(await status("eve-0123456789abcdef")).toBe(401);
  child.kill("SIGTERM");
  const { code, stderr } = await ended;
  expect(code).toBe(0);
  expect(stderr).toContain('"path":"/v1/models","status":401');
  expect(stderr).not.toContain("0123456789abcdef");
});

test("a second Ctrl-C exits immediately", async () => {
  const { child, url, ended } = await serve(["--quiet"]);
  // A request whose body never ends keeps the first stop waiting. The server answers "continue" when it has arrived.
  const asked = request(`${url}/v1/chat/completions`, {
    method: "POST",
    headers: { "content-type": "application/json", expect: "100-continue" },
  });
  const cut = once(asked, "error");
  asked.flushHeaders();
  await once(asked, "continue");
  asked.write("{");
  const began = performance.now();
  child.stderr?.once("data", () => child.kill("SIGINT"));
  child.kill("SIGINT");
  expect((await ended).code).toBe(130);
  expect(performance.now() - began).toBeLessThan(4000);
  await cut;
});

test("reports a port in use, an unknown model and an invalid origin", async () => {
  const { url } = await serveApp(await tinyEngine());
  const { port } = new URL(url);
  const inUse = await minigpt4(["serve", "--model", model, "--port", port]);
  expect(inUse.code).toBe(1);
  expect(inUse.stderr).toBe(
    `error: Port ${port} of 127.0.0.1 is in use by another program. Choose another with --port.\n`,
  );
  const unknown = await minigpt4(["serve", "--model", "nothing", "--host", "0.0.0.0"]);
  expect(unknown.code).toBe(1);
  expect(unknown.stderr).toMatch(/^warning: anyone who can reach 0\.0\.0\.0 can use this server.*\nerror: No model/);
  const wrong = await minigpt4(["serve", "--cors", "example.org"]);
  expect(wrong.code).toBe(2);
  expect(wrong.stderr).toContain("Expected an origin such as https://example.org");
});
