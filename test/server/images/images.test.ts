/** The images of one request: together they are bounded, and none is fetched for longer than the request lives. */
import type { ServerResponse } from "node:http";
import sharp from "sharp";
import { beforeEach, expect, test } from "vitest";
import { ImageRejectedError } from "../../../src/server/errors.ts";
import { fetchImages } from "../../../src/server/images/request-images.ts";
import { listening } from "../../helpers/loopback.ts";

const noise = { type: "gaussian", mean: 128, sigma: 60 } as const;
const image = await sharp({ create: { width: 20, height: 20, channels: 3, background: "black", noise } })
  .png()
  .toBuffer();

const asked: ServerResponse[] = [];
const port = await listening((request, response) => {
  asked.push(response);
  switch (request.url) {
    case "/image.png":
      return response.writeHead(200, { "content-type": "image/png" }).end(image);
    case "/endless": {
      response.writeHead(200, { "content-type": "image/png" });
      const more = (): void => void (response.writable && response.write(Buffer.alloc(10_000), more));
      return more();
    }
    case "/silent":
      return;
    default:
      return response.writeHead(404).end();
  }
});
beforeEach(() => {
  asked.length = 0;
});

const limits = {
  allowRemote: true,
  maxBytes: 3 * image.length,
  maxPixels: 10_000,
  maxImages: 16,
  timeout: 30_000,
  resolve: async () => ["127.0.0.1"],
  allow: [{ address: "127.0.0.1", port }],
};
const at = (path: string) => `http://images.test:${port}${path}`;
const many = (path: string, count: number) => Array.from({ length: count }, () => at(path));
const never = new AbortController().signal;

/** What is thrown, when everything that was begun has ended. */
async function refusal(urls: readonly string[], changed: Partial<typeof limits> = {}, signal = never) {
  const error: unknown = await fetchImages(urls, { ...limits, ...changed }, signal).catch((error) => error);
  await expect.poll(() => asked.every((response) => response.closed)).toBe(true);
  return error;
}

test("the byte limit of a request is inclusive", async () => {
  expect(await fetchImages(many("/image.png", 3), limits, never)).toHaveLength(3);
  const error = await refusal(many("/image.png", 3), { maxBytes: limits.maxBytes - 1 });
  expect(error).toBeInstanceOf(ImageRejectedError);
  expect(error).toMatchObject({
    code: "image_too_large",
    message: `The images of a request may have at most ${limits.maxBytes - 1} bytes together. Reduce their size.`,
  });
});

test("endless downloads stop at the limit, and all connections are closed", async () => {
  const error = await refusal(many("/endless", 16), { maxBytes: 1_000_000 });
  // Not that one of them is too large: none had so many bytes yet.
  expect(error).toMatchObject({ code: "image_too_large", message: expect.stringContaining("together") });
  expect(asked.length).toBeGreaterThan(1);
});

test("one rejected image aborts the other downloads", async () => {
  const begin = performance.now();
  const error = await refusal([...many("/silent", 3), at("/missing")]);
  expect(error).toMatchObject({ code: "failed_to_download_image", message: expect.stringContaining("404") });
  expect(performance.now() - begin).toBeLessThan(5000);
});

test("an abort rejects with its reason and closes the downloads", async () => {
  const leaving = new AbortController();
  setTimeout(() => leaving.abort(new Error("gone")), 100);
  expect(await refusal(many("/silent", 3), {}, leaving.signal)).toMatchObject({ message: "gone" });
});

test("the maximum number of images causes no leak warning", async () => {
  const warnings: Error[] = [];
  const warn = (warning: Error) => warnings.push(warning);
  process.on("warning", warn);
  await fetchImages(many("/image.png", 16), { ...limits, maxBytes: 16 * image.length }, never);
  await new Promise((resolve) => setImmediate(resolve));
  process.off("warning", warn);
  expect(warnings).toEqual([]);
});

test("the pixel limit applies to all images together", async () => {
  expect(await fetchImages(many("/image.png", 2), { ...limits, maxPixels: 800 }, never)).toHaveLength(2);
  const error = await refusal(many("/image.png", 2), { maxPixels: 799 });
  expect(error).toMatchObject({ code: "image_too_large", message: expect.stringContaining("20 x 20, 20 x 20") });
});
