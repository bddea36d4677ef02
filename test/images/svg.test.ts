/** An SVG draws what is in it: it reads no files and asks no servers, and expands no texts without bound. */

import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import sharp from "sharp";
import { afterAll, expect, test } from "vitest";
import { ImageError, readImage } from "../../src/images/decode.ts";

const folder = mkdtempSync(join(tmpdir(), "minigpt4-svg-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const red = join(folder, "red.png");
writeFileSync(
  red,
  await sharp({ create: { width: 8, height: 8, channels: 3, background: "red" } })
    .png()
    .toBuffer(),
);
writeFileSync(
  join(folder, "red.svg"),
  "<svg xmlns='http://www.w3.org/2000/svg'><rect id='a' width='8' height='8' fill='red'/></svg>",
);
writeFileSync(join(folder, "red.css"), "rect { fill: red !important }");
const file = (name: string) => pathToFileURL(join(folder, name)).href;

const asked: string[] = [];
const server = createServer((request, response) => {
  asked.push(request.url ?? "");
  response.end();
});
await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
afterAll(() => void server.close());
const web = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;

const svg = (content: string, before = "") =>
  Buffer.from(
    `<?xml version="1.0"?>${before}<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" xmlns:xi="http://www.w3.org/2001/XInclude" width="8" height="8"><rect width="8" height="8" fill="white"/>${content}</svg>`,
  );
const isRed = async (bytes: Uint8Array) => {
  const { data } = await readImage(bytes);
  return data.some((value, i) => i % 3 === 1 && value < 128);
};

test("embedded content of an SVG is drawn, so the other tests would notice external content", async () => {
  const inside = `data:image/png;base64,${(await sharp(red).toBuffer()).toString("base64")}`;
  expect(await isRed(svg(`<image width="8" height="8" href="${inside}"/>`))).toBe(true);
  expect(await isRed(svg(`<style>rect { fill: red }</style>`))).toBe(true);
  expect(await isRed(svg("&a;", `<!DOCTYPE svg [<!ENTITY a "<rect width='8' height='8' fill='red'/>">]>`))).toBe(true);
});

test.each([
  ["a file", `<image width="8" height="8" href="${file("red.png")}"/>`],
  ["a path", `<image width="8" height="8" href="${red}"/>`],
  ["a path, as old files have it", `<image width="8" height="8" xlink:href="${red}"/>`],
  ["a URL", `<image width="8" height="8" href="${web}/image.png"/>`],
  ["a drawing in a file", `<use href="${file("red.svg")}#a"/>`],
  ["a drawing at a URL", `<use href="${web}/red.svg#a"/>`],
  ["a style in a file", `<style>@import url("${file("red.css")}");</style>`],
  ["a style at a URL", `<style>@import url("${web}/red.css");</style>`],
  [
    "an image in a filter",
    `<filter id="f"><feImage href="${file("red.png")}"/></filter><rect width="8" height="8" filter="url(#f)"/>`,
  ],
  ["an included file", `<xi:include href="${file("red.svg")}"/>`],
  ["an included text at a URL", `<style><xi:include parse="text" href="${web}/text"/></style>`],
  ["an included text of a file", `<style><xi:include parse="text" href="${file("red.css")}"/></style>`],
  ["another document", `<foreignObject width="8" height="8"><iframe src="${web}/page"/></foreignObject>`],
  ["a program", `<script>fetch("${web}/script")</script>`],
])("%s that an SVG refers to is not fetched", async (_, content) => {
  expect(await isRed(svg(content)).catch((error) => error instanceof ImageError && "refused")).not.toBe(true);
});

test.each([
  ["a file", `<!DOCTYPE svg [<!ENTITY a SYSTEM "${file("red.svg")}">]>`],
  ["a URL", `<!DOCTYPE svg [<!ENTITY a SYSTEM "${web}/entity">]>`],
  ["a file of declarations", `<!DOCTYPE svg SYSTEM "${web}/svg.dtd" [<!ENTITY % d SYSTEM "${web}/d.dtd"> %d;]>`],
  ["a style sheet", `<?xml-stylesheet href="${web}/style.css"?><?xml-stylesheet href="${file("red.css")}"?>`],
])("%s that stands before an SVG is not fetched", async (_, before) => {
  const image = svg("&a;", before);
  expect(await isRed(image).catch((error) => error instanceof ImageError && "refused")).not.toBe(true);
});

test("an entity expansion bomb is refused quickly", async () => {
  const laughs = Array.from({ length: 10 }, (_, i) => `<!ENTITY a${i + 1} "${`&a${i};`.repeat(10)}">`).join("");
  const begin = performance.now();
  await expect(readImage(svg("<text>&a10;</text>", `<!DOCTYPE svg [<!ENTITY a0 "ha">${laughs}]>`))).rejects.toThrow(
    ImageError,
  );
  expect(performance.now() - begin).toBeLessThan(5000);
});

test("no request was sent to a server", async () => {
  expect(asked).toEqual([]);
});
