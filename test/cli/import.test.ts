/** An import from the command line: what it says, and that a process that is killed leaves work that the next one goes on with. */
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as later } from "node:timers/promises";
import { expect, test } from "vitest";
import { minigpt4, outcome, start } from "../helpers/cli-command.ts";
import { golden } from "../helpers/golden-import.ts";
import { temporaryFolder } from "../helpers/tiny-model.ts";

const folder = temporaryFolder();

const importInto = (out: string) => [
  ...["import", "--vit", golden("eva_vit.pth"), "--qformer", golden("blip2_qformer.pth")],
  ...["--llm", golden("llama-bin"), "--projection", golden("minigpt4.pth")],
  ...["--vit-heads", "4", "--qformer-heads", "4", "--out", out],
];

test("reports progress and the result, as text and as JSON", async () => {
  const out = join(folder, "told");
  const { code, stdout, stderr } = await minigpt4(importInto(out));
  expect(code).toBe(0);
  expect(stderr).toMatch(/^Comparing blocks of the image encoder \d+ of \d+ /m);
  expect(stderr).toMatch(/^Writing .*B of .*B /m);
  expect(stdout).toContain(`${out}: `);
  expect(stdout).toContain("minigpt4 chat --model");
  const again = await minigpt4([...importInto(out), "--json"]);
  expect(JSON.parse(again.stdout)).toMatchObject({ path: out, template: "vicuna-v0", resumed: expect.any(Number) });
});

test("killed at any step, it continues to the same files", { timeout: 120_000 }, async () => {
  const whole = join(folder, "whole");
  await minigpt4(importInto(whole));
  const out = join(folder, "killed");
  // From one kill to the next the folder has come further.
  for (const marker of ["import.json", "encoder.safetensors", "llm", "config.json"]) {
    const child = start(importInto(out));
    const ended = outcome(child);
    while (child.exitCode === null && !existsSync(join(out, marker))) await later(1);
    child.kill("SIGKILL");
    await ended;
  }
  expect((await minigpt4(importInto(out))).code).toBe(0);
  expect(contents(out)).toEqual(contents(whole));
});

/** What lies in a folder, but the journal, which knows when each file was written. */
function contents(path: string): Record<string, string> {
  const files = readdirSync(path, { recursive: true, encoding: "utf8" })
    .filter((file) => file !== "import.json" && statSync(join(path, file)).isFile())
    .sort();
  return Object.fromEntries(files.map((file) => [file, readFileSync(join(path, file)).toString("base64")]));
}

test("--help states the default block size, and no other", async () => {
  const help = (await minigpt4(["import", "--help"])).stdout.replace(/\s+/g, " ");
  expect(help).toMatch(/--block-size <n> [^-]*\(choices: "128", "64", "32", default: "128"\)/);
  expect(help).not.toMatch(/blocks of (32|64)/);
});
