import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { exportWeb } from "../../src/convert/export-web.ts";
import { parseWebModel } from "../../src/models/web-model.ts";
import { temporaryFolder, tinyModel } from "../helpers/tiny-model.ts";

const folder = temporaryFolder();
const at = (name: string) => join(folder, name);
const model = tinyModel(folder);
const page = at("page");
mkdirSync(join(page, "assets"), { recursive: true });
writeFileSync(join(page, "index.html"), "<!doctype html>\n<html>\n  <head>\n    <title>t</title>\n  </head>\n</html>");
writeFileSync(join(page, "assets", "main.js"), "1");
const options = { page, name: "tiny" };

const leftovers = () => readdirSync(folder).filter((name) => /partial|former/.test(name));

test("the folder contains the page with the path of its model, and weight files of the listed sizes", async () => {
  const seen: number[][] = [];
  const onProgress = (done: number, total: number) => void seen.push([done, total]);
  const written = await exportWeb(model, at("site"), { ...options, onProgress });
  const html = readFileSync(at("site/index.html"), "utf8");
  expect(html).toContain(`<meta name="minigpt4-model" content="./model.json" />`);
  expect(html).toContain("script-src 'self' 'wasm-unsafe-eval'");
  expect(readFileSync(at("site/assets/main.js"), "utf8")).toBe("1");

  const { weights, tokenizer, tensors } = parseWebModel(JSON.parse(readFileSync(at("site/model.json"), "utf8")));
  const files = [tokenizer, ...weights];
  for (const { name, bytes, sha256 } of files) {
    const content = readFileSync(at(`site/${name}`));
    expect([content.length, createHash("sha256").update(content).digest("hex")]).toEqual([bytes, sha256]);
  }
  expect(written.modelBytes).toBe(files.reduce((sum, { bytes }) => sum + bytes, 0));
  expect(written.bytes).toBeGreaterThan(written.modelBytes);

  const all = Object.values(tensors).flat();
  expect(seen.at(-1)).toEqual([all.length, all.length]);
  const packing = (name: string) => all.find((tensor) => tensor.name === name)?.packing;
  expect(packing("model.layers.0.mlp.gate_proj.weight")).toBe("Q4_1");
  expect(packing("model.embed_tokens.weight")).toBe("float16");
  // Of the file's tensors only those that the network asks for.
  expect(all.map(({ name }) => name).filter((name) => /position_ids|rotary|mask_token/.test(name))).toEqual([]);
});

test("only an earlier export is replaced, and only with overwrite", async () => {
  await exportWeb(model, at("twice"), options);
  writeFileSync(at("twice/note.txt"), "mine");
  await expect(exportWeb(model, at("twice"), options)).rejects.toThrow(
    "already exists; pass --overwrite to replace it",
  );
  expect(existsSync(at("twice/note.txt"))).toBe(true);
  await exportWeb(model, at("twice"), { ...options, overwrite: true });
  expect(existsSync(at("twice/note.txt"))).toBe(false);

  mkdirSync(at("papers"));
  writeFileSync(at("papers/thesis.txt"), "mine");
  const refused = exportWeb(model, at("papers"), { ...options, overwrite: true });
  await expect(refused).rejects.toThrow("is not an exported model; choose another folder");
  expect(readFileSync(at("papers/thesis.txt"), "utf8")).toBe("mine");
  expect(leftovers()).toEqual([]);
});

test("an interrupted export leaves nothing behind", async () => {
  const controller = new AbortController();
  const onProgress = (done: number) => {
    if (done === 20) controller.abort(new Error("enough"));
  };
  const { signal } = controller;
  await expect(exportWeb(model, at("half"), { ...options, signal, onProgress })).rejects.toThrow("enough");
  expect(existsSync(at("half"))).toBe(false);
  expect(leftovers()).toEqual([]);
});

test("the error for a missing page names the command that builds it", async () => {
  await expect(exportWeb(model, at("none"), { ...options, page: at("nowhere") })).rejects.toThrow("npm run build:web");
});
