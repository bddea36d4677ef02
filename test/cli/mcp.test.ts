import { join } from "node:path";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { getDefaultEnvironment, StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";
import { CallToolResultSchema } from "@modelcontextprotocol/sdk/types.js";
import { afterAll, beforeAll, expect, test } from "vitest";
import { commandLine, image, minigpt4, outcome, start } from "../helpers/cli-command.ts";
import { temporaryFolder, tinyModel } from "../helpers/tiny-model.ts";

const folder = temporaryFolder();
const model = tinyModel(folder);
const cat = image("cat.jpg");
const flags = ["mcp", "--model", model, "--allow-folder", join(cat, "..")];
const client = new Client({ name: "test", version: "1" });
let stderr = "";

beforeAll(async () => {
  const [command = "", ...args] = commandLine(flags);
  const transport = new StdioClientTransport({ command, args, env: getDefaultEnvironment(), stderr: "pipe" });
  transport.stderr?.on("data", (text) => {
    stderr += text;
  });
  await client.connect(transport);
});
afterAll(() => client.close());

async function call(name: string, args: Record<string, unknown>) {
  return CallToolResultSchema.parse(await client.callTool({ name, arguments: args }));
}

/** Messages as a client without a library would write them. */
function lines(...messages: readonly (object | string)[]): string {
  return messages.map((message) => `${typeof message === "string" ? message : JSON.stringify(message)}\n`).join("");
}

const initialize = {
  jsonrpc: "2.0",
  id: 1,
  method: "initialize",
  params: { protocolVersion: "2025-06-18", capabilities: {}, clientInfo: { name: "test", version: "1" } },
};

function toolCall(id: number, args: Record<string, unknown>) {
  return { jsonrpc: "2.0", id, method: "tools/call", params: { name: "describe_image", arguments: args } };
}

test("the official client lists the tools, and describes and asks about an image", async () => {
  const { tools } = await client.listTools();
  expect(tools.map(({ name }) => name)).toEqual(["describe_image", "ask_about_image"]);
  const described = await minigpt4(["describe", cat, "--model", model, "--max-new-tokens", "8", "--json"]);
  const { description } = JSON.parse(described.stdout);
  expect(await call("describe_image", { image: cat, max_new_tokens: 8 })).toMatchObject({
    content: [{ type: "text", text: description }],
    structuredContent: { description, finish_reason: "length" },
  });
  const { structuredContent } = await call("ask_about_image", {
    question: "What is it?",
    images: [cat, image("coffee.jpg")],
    max_new_tokens: 8,
  });
  expect(structuredContent).toEqual({ answer: expect.stringMatching(/./), finish_reason: "length" });
});

test("a missing file and a file outside the allowed folders are tool errors", async () => {
  const missing = await call("describe_image", { image: join(cat, "..", "dog.jpg") });
  expect(missing).toMatchObject({
    isError: true,
    content: [{ text: expect.stringContaining("no such file or folder") }],
  });
  const outside = await call("describe_image", { image: join(model, "config.json") });
  expect(outside).toMatchObject({
    isError: true,
    content: [{ text: expect.stringContaining("outside the allowed folders") }],
  });
  expect(stderr).toBe("");
});

test("a cancelled call stops, and the next one is answered", async () => {
  const cancelling = new AbortController();
  const params = { name: "describe_image", arguments: { image: cat, max_new_tokens: 400 } };
  const cancelled = client.callTool(params, CallToolResultSchema, {
    signal: cancelling.signal,
    onprogress: ({ progress }) => progress === 3 && cancelling.abort("enough"),
  });
  await expect(cancelled).rejects.toThrow("enough");
  expect(await call("describe_image", { image: cat, max_new_tokens: 2 })).toHaveProperty("structuredContent");
});

test("reports invalid input on standard error, and writes only answers to standard output", async () => {
  const child = start(flags);
  const ended = outcome(child);
  child.stdin?.write(
    lines("garbage", '{"jsonrpc": "2.0"}', "[]", "\u0000", initialize, toolCall(2, { image: cat, max_new_tokens: 2 })),
  );
  let answers = 0;
  child.stdout?.on("data", (text: string) => {
    answers += text.split("\n").length - 1;
    if (answers === 2) child.stdin?.end();
  });
  const { code, stdout, stderr } = await ended;
  expect(code).toBe(0);
  const messages = stdout.trimEnd().split("\n");
  expect(messages.map((message) => JSON.parse(message).id)).toEqual([1, 2]);
  expect(stderr.trimEnd().split("\n")).toEqual(Array(4).fill(expect.stringMatching(/^error: /)));
});

test("the end of standard input stops the server, also during an answer", async () => {
  const child = start(flags);
  const ended = outcome(child);
  const long = { ...toolCall(2, { image: cat, max_new_tokens: 400 }) };
  child.stdin?.write(lines(initialize, { ...long, params: { ...long.params, _meta: { progressToken: "p" } } }));
  child.stdout?.on("data", (text: string) => text.includes('"progress":3') && child.stdin?.end());
  const { code, stdout, stderr } = await ended;
  expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  expect(stdout).not.toContain('"id":2');
});

test("answers requests before the end of input; initialize does not wait for the model", async () => {
  const list = { jsonrpc: "2.0", id: 2, method: "tools/list" };
  const { code, stdout } = await minigpt4(["mcp"], lines(initialize, list));
  expect(code).toBe(0);
  expect(stdout.trimEnd().split("\n")).toHaveLength(2);
});

test("Ctrl-C exits with 130", async () => {
  const child = start(flags);
  child.stdin?.write(lines(initialize));
  child.stdout?.once("data", () => child.kill("SIGINT"));
  expect(await outcome(child)).toMatchObject({ code: 130, stderr: "" });
});

test("reports a missing model or folder immediately", async () => {
  const noModel = await minigpt4(["mcp", "--model", "enormous"]);
  expect(noModel).toMatchObject({ code: 1, stdout: "" });
  expect(noModel.stderr).toMatch(/^error: No model "enormous"/);
  const noFolder = await minigpt4(["mcp", "--allow-folder", join(folder, "nowhere")]);
  expect(noFolder).toMatchObject({ code: 2, stdout: "" });
  expect(noFolder.stderr).toContain("No such folder.");
});

test("--help shows the configuration of clients", async () => {
  const { stdout } = await minigpt4(["mcp", "--help"]);
  const snippet = JSON.parse(stdout.slice(stdout.indexOf("{")));
  expect(snippet.mcpServers.minigpt4.args.slice(0, 4)).toEqual(["-y", "minigpt4", "mcp", "--allow-folder"]);
});

test("a message above the limit stops the server with an error", async () => {
  const child = start(flags);
  child.stdin?.on("error", () => {});
  const ended = outcome(child);
  const chunk = "A".repeat(1 << 20);
  for (let i = 0; i < 66; i++) child.stdin?.write(chunk);
  const { code, stderr } = await ended;
  expect(code).toBe(1);
  expect(stderr).toContain("pass a large image as a file path");
});
