import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { minigpt4, outcome, start } from "../helpers/cli-command.ts";

const { version } = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8"));

test("--version is the package's", async () => {
  expect(await minigpt4(["--version"])).toEqual({ code: 0, stdout: `${version}\n`, stderr: "" });
});

test("--help lists every command", async () => {
  const { code, stdout } = await minigpt4(["--help"]);
  expect(code).toBe(0);
  for (const command of ["describe", "chat", "search", "serve", "pull", "inspect", "train", "plot", "curate", "demo"]) {
    expect(stdout).toMatch(new RegExp(`^ {2}${command} `, "m"));
  }
});

test.each([
  ["descibe x", "Did you mean describe?"],
  ["describe", "missing required argument 'image'"],
  ["describe x --block-size 64", "error: --block-size needs --quantization int4."],
  ["describe x --top-p 1.5", "'--top-p <p>' argument '1.5' is invalid. Expected a number between 0 and 1"],
])("wrong usage exits with 2 before anything is loaded: %s", async (line, message) => {
  const { code, stdout, stderr } = await minigpt4(line.split(" "));
  expect({ code, stdout }).toEqual({ code: 2, stdout: "" });
  expect(stderr).toContain(message);
});

test("an error is one line; the stack trace is printed on request", async () => {
  const short = await minigpt4(["inspect", "nowhere.gguf"]);
  expect(short).toEqual({ code: 1, stdout: "", stderr: "error: nowhere.gguf: no such file or folder\n" });
  for (const long of [
    await minigpt4(["inspect", "nowhere.gguf", "--verbose"]),
    await minigpt4(["inspect", "nowhere.gguf"], "", { MINIGPT4_DEBUG: "1" }),
  ]) {
    expect(long.code).toBe(1);
    expect(long.stderr).toContain("    at ");
  }
});

test("help of a command and of a subcommand, in both forms", async () => {
  for (const names of [
    ["describe"],
    ["curate", "polish"],
    ["export", "web"],
    ["evaluate", "perplexity"],
    ["delta", "apply"],
  ]) {
    const { code, stdout } = await minigpt4([...names, "--help"]);
    expect({ code, usage: stdout.split(/ \[options\]/)[0] }).toEqual({
      code: 0,
      usage: `Usage: minigpt4 ${names.join(" ")}`,
    });
    expect(await minigpt4(["help", ...names])).toEqual({ code, stdout, stderr: "" });
  }
});

test("help and version do not load the runtime", async () => {
  const child = start(["describe", "--help"], { NODE_DEBUG: "esm" });
  const { stdout, stderr } = await outcome(child);
  expect(stdout).toContain("Usage: minigpt4 describe");
  expect(stderr).toContain("commander");
  expect(stderr).not.toContain("onnxruntime-node");
});
