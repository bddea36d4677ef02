import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join, parse, relative } from "node:path";
import { pathToFileURL } from "node:url";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { InMemoryTransport } from "@modelcontextprotocol/sdk/inMemory.js";
import { CallToolResultSchema, ListRootsRequestSchema } from "@modelcontextprotocol/sdk/types.js";
import fc from "fast-check";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { GenerationRequest } from "../../../src/engine/engine.ts";
import { loadEngine } from "../../../src/engine/load-engine.ts";
import type { LocalEngine } from "../../../src/engine/local-engine.ts";
import { quote } from "../../../src/files/errors.ts";
import { createMcpServer, type McpOptions } from "../../../src/server/mcp/mcp-server.ts";
import { image } from "../../helpers/cli-command.ts";
import { temporaryFolder, tinyModel } from "../../helpers/tiny-model.ts";

const cat = image("cat.jpg");
const coffee = image("coffee.jpg");
const images = join(cat, "..");
const folder = temporaryFolder();
let engine: LocalEngine;

beforeAll(async () => {
  engine = await loadEngine(tinyModel(folder), "tiny");
});
afterAll(() => engine.close());

/** A client that is connected to a server of its own; `roots` are what it offers. */
async function connect(options: Partial<McpOptions> = {}, roots?: readonly string[], open = async () => engine) {
  const server = createMcpServer(open, { version: "1.2.3", workingDirectory: folder, ...options });
  const client = new Client({ name: "test", version: "1" }, { capabilities: roots ? { roots: {} } : {} });
  if (roots) client.setRequestHandler(ListRootsRequestSchema, () => ({ roots: roots.map((uri) => ({ uri })) }));
  const [here, there] = InMemoryTransport.createLinkedPair();
  await Promise.all([server.connect(there), client.connect(here)]);
  return client;
}

/** The result of a call: its structured content, or the text of its error. */
async function call(client: Client, name: string, args: Record<string, unknown>) {
  const { content, structuredContent, isError } = CallToolResultSchema.parse(
    await client.callTool({ name, arguments: { max_new_tokens: 8, ...args } }),
  );
  const text = content.map((part) => (part.type === "text" ? part.text : "")).join("");
  return isError ? { error: text } : { text, structured: structuredContent };
}

/** What the engine itself answers. */
async function answered(
  question: Partial<GenerationRequest> & Pick<GenerationRequest, "turns" | "images">,
): Promise<string> {
  let text = "";
  for await (const event of engine.generate({ maxNewTokens: 8, ...question })) {
    if (event.kind === "text") text += event.text;
  }
  return text.trim();
}

test("lists the tools with schemas and annotations", async () => {
  const client = await connect();
  expect(client.getServerVersion()).toMatchObject({ name: "minigpt4", version: "1.2.3" });
  expect(client.getInstructions()).toContain("can be wrong");
  const { tools } = await client.listTools();
  expect(tools.map(({ name, inputSchema: { required } }) => [name, required])).toEqual([
    ["describe_image", ["image"]],
    ["ask_about_image", ["question", "images"]],
  ]);
  for (const tool of tools) {
    expect(tool.annotations).toEqual({ readOnlyHint: true, openWorldHint: false });
    expect(tool.title).toBeTruthy();
    expect(tool.outputSchema?.required).toContain("finish_reason");
  }
});

test("describes an image from a path and from data, as text and structured content", async () => {
  const client = await connect({ allowedFolders: [images] });
  const description = await answered({ turns: "describe", images: [cat] });
  const expected = { text: description, structured: { description, finish_reason: "length" } };
  expect(await call(client, "describe_image", { image: cat })).toEqual(expected);
  const data = readFileSync(cat).toString("base64");
  expect(await call(client, "describe_image", { image: { data, mimeType: "image/jpeg" } })).toEqual(expected);
});

test("a question, several images, earlier turns, sampling with a seed", async () => {
  const client = await connect({ allowedFolders: [images] });
  const asked = {
    question: "And now?",
    images: [cat, coffee],
    earlier_turns: [{ question: "What is this?", answer: "A cat and a cup." }],
    temperature: 1,
    seed: 7,
  };
  const answer = await answered({
    turns: [
      { role: "user", text: "What is this?", images: 2 },
      { role: "assistant", text: "A cat and a cup." },
      { role: "user", text: "And now?" },
    ],
    images: [cat, coffee],
    temperature: 1,
    seed: 7,
  });
  expect(await call(client, "ask_about_image", asked)).toMatchObject({ structured: { answer } });
  for (const change of [{ seed: 8 }, { earlier_turns: [] }, { images: [coffee, cat] }, { question: "Why?" }]) {
    const other = await call(client, "ask_about_image", { ...asked, ...change });
    expect(other.structured?.answer, JSON.stringify(change)).not.toBe(answer);
  }
});

test("without --allow-folder, allows the working directory and the client's roots", async () => {
  const roots = ["file://%"];
  const offering = await connect({}, roots);
  expect((await call(offering, "describe_image", { image: cat })).error).toContain("outside the allowed folders");
  roots.push(pathToFileURL(images).href);
  expect(await call(offering, "describe_image", { image: cat })).toHaveProperty("structured");
  const beside = await connect({ workingDirectory: images });
  expect(await call(beside, "describe_image", { image: "cat.jpg" })).toHaveProperty("structured");
  const neither = await connect();
  const refused = await call(neither, "describe_image", { image: cat });
  expect(refused.error).toContain(`${quote(cat)} is outside the allowed folders (${folder})`);
  const strict = await connect({ allowedFolders: [folder] }, roots);
  expect((await call(strict, "describe_image", { image: cat })).error).toContain("outside the allowed folders");
  const whole = await connect({ workingDirectory: parse(folder).root });
  expect((await call(whole, "describe_image", { image: cat })).error).toContain("(none)");
});

test("links cannot lead out of the allowed folders", async () => {
  const allowed = join(folder, "allowed");
  mkdirSync(join(folder, "allowed-too"), { recursive: true });
  mkdirSync(join(allowed, "deep"), { recursive: true });
  for (const place of [folder, join(folder, "allowed-too"), join(allowed, "deep")]) {
    writeFileSync(join(place, "cat.jpg"), readFileSync(cat));
  }
  // A junction, as Windows lets anyone make.
  symlinkSync(folder, join(allowed, "out"), "junction");
  symlinkSync(join(allowed, "deep"), join(folder, "in"), "junction");
  const client = await connect({ workingDirectory: allowed, allowedFolders: [allowed, join(folder, "in")] });
  const of = (path: string) => call(client, "describe_image", { image: path });
  expect(await of("deep/cat.jpg")).toHaveProperty("structured");
  expect(await of("deep/../deep/cat.jpg")).toHaveProperty("structured");
  expect(await of(join(folder, "in", "cat.jpg")), "an allowed link").toHaveProperty("structured");
  expect((await of("out/cat.jpg")).error).toContain('"out/cat.jpg" is a link to a file outside the allowed folders');
  for (const path of [
    "../cat.jpg",
    "../allowed-too/cat.jpg",
    join(folder, "cat.jpg"),
    "..",
    "/etc/passwd",
    "//host/a.jpg",
  ]) {
    expect((await of(path)).error, path).toContain("is outside the allowed folders");
  }
  // What is outside is refused alike, whether it is there or not.
  expect((await of("../missing.jpg")).error).toContain("is outside the allowed folders");
});

test("rejects any path outside the allowed folders", async () => {
  const allowed = join(folder, "climb");
  mkdirSync(allowed);
  const client = await connect({ workingDirectory: allowed, allowedFolders: [allowed] });
  const step = fc.constantFrom("..", ".", "climb", "a", "..a", "a..", "");
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 8 }), async (steps) => {
      const path = `./${steps.join("/")}`;
      const { error } = await call(client, "describe_image", { image: path });
      const way = relative(allowed, join(allowed, path));
      const climbs = way === ".." || /^\.\.[\\/]/.test(way);
      expect(error?.includes("is outside the allowed folders"), `${path}: ${error}`).toBe(climbs);
    }),
    { numRuns: 60 },
  );
});

test.each<[string, Record<string, unknown>, string]>([
  ["a missing file", { image: "missing.jpg" }, 'Cannot read "missing.jpg": no such file or folder'],
  ["a folder", { image: "." }, "is a folder, not an image"],
  ["no image", { image: "config.json" }, "is not an image that can be read"],
  ["data that is no base64", { image: { data: "a cat", mimeType: "image/png" } }, "is not valid base64"],
  ["data that is no image", { image: { data: "AAAA", mimeType: "image/png" } }, "is not an image"],
  [
    "a media type that is no image's",
    { image: { data: "AAAA", mimeType: "text/html" } },
    "media type that begins with image/",
  ],
  ["a word that no tool knows", { image: "cat.jpg", maxNewTokens: 3 }, 'Unrecognized key: "maxNewTokens"'],
  ["a number out of bounds", { image: "cat.jpg", temperature: -1 }, "temperature"],
])("%s is a tool error, and the next call works", async (_, args, message) => {
  const model = join(folder, "tiny");
  const client = await connect({ workingDirectory: model, allowedFolders: [model, images] });
  expect((await call(client, "describe_image", args)).error).toContain(message);
  expect(await call(client, "describe_image", { image: cat })).toHaveProperty("structured");
});

test("progress notifications have increasing numbers and the text so far", async () => {
  const client = await connect({ allowedFolders: [images] });
  const told: { progress: number; message?: string }[] = [];
  const params = { name: "describe_image", arguments: { image: cat, max_new_tokens: 8 } };
  const { structuredContent } = CallToolResultSchema.parse(
    await client.callTool(params, CallToolResultSchema, { onprogress: (progress) => told.push(progress) }),
  );
  expect(told.map(({ progress }) => progress)).toEqual(told.map((_, i) => i));
  expect(told[0]?.message).toBe("Loading the model");
  expect(told.length).toBeGreaterThan(4);
  expect(told.at(-1)?.message).toBe(structuredContent?.description);
});

test("concurrent calls give the same answers as single ones", async () => {
  const client = await connect({ allowedFolders: [images] });
  const answers = await Promise.all([cat, coffee, cat].map((image) => call(client, "describe_image", { image })));
  const alone = await Promise.all([cat, coffee].map((path) => answered({ turns: "describe", images: [path] })));
  expect(answers.map(({ text }) => text)).toEqual([alone[0], alone[1], alone[0]]);
});

test("a cancelled call stops the generation", async () => {
  let [pieces, ended] = [0, false];
  const listened: LocalEngine = Object.create(engine, {
    generate: {
      async *value(question: GenerationRequest, signal?: AbortSignal) {
        try {
          for await (const event of engine.generate(question, signal)) {
            pieces++;
            yield event;
          }
        } finally {
          ended = true;
        }
      },
    },
  });
  const client = await connect({ allowedFolders: [images] }, undefined, async () => listened);
  const cancelling = new AbortController();
  const params = { name: "ask_about_image", arguments: { question: "Why?", images: [cat], max_new_tokens: 400 } };
  const answer = client.callTool(params, CallToolResultSchema, {
    signal: cancelling.signal,
    onprogress: ({ progress }) => progress === 3 && cancelling.abort(),
  });
  await expect(answer).rejects.toThrow();
  await expect.poll(() => ended).toBe(true);
  expect(pieces).toBeLessThan(100);
  expect(await call(client, "describe_image", { image: cat })).toHaveProperty("structured");
});

test("a model that fails to load is a tool error, and is loaded by a later call", async () => {
  let tries = 0;
  const open = async () => {
    if (++tries === 1) throw new Error("the language model could not be fetched");
    return engine;
  };
  const client = await connect({ allowedFolders: [images] }, undefined, open);
  await client.listTools();
  expect(tries).toBe(0);
  expect(await call(client, "describe_image", { image: cat })).toEqual({
    error: "the language model could not be fetched",
  });
  expect(await call(client, "describe_image", { image: cat })).toHaveProperty("structured");
});
