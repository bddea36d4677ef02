/** Images in requests: data URLs are decoded, other places asked only where that is allowed, and nothing else is an image. */
import fc from "fast-check";
import sharp from "sharp";
import { describe, expect, test } from "vitest";
import { ImageRejectedError } from "../../../src/server/errors.ts";
import { fetchImage } from "../../../src/server/images/request-images.ts";
import { listening } from "../../helpers/loopback.ts";

const red = sharp({ create: { width: 5, height: 4, channels: 3, background: "red" } });
const png = await red.clone().png().toBuffer();
const policy = { allowRemote: false };
const base64 = (bytes: Uint8Array, type = "image/png") =>
  `data:${type};base64,${Buffer.from(bytes).toString("base64")}`;
const percent = (bytes: Uint8Array) => [...bytes].map((byte) => `%${byte.toString(16).padStart(2, "0")}`).join("");
const code = (promise: Promise<unknown>) =>
  promise.then(
    () => "taken",
    (error) => (error instanceof ImageRejectedError ? error.code : error),
  );

describe("data URLs", () => {
  test.each([
    ["base64", base64(png)],
    ["base64 without its padding", base64(png).replace(/=+$/, "")],
    ["base64 in lines", base64(png).replace(/.{60}/g, "$&\r\n")],
    [
      "base64 with codes for its signs",
      base64(png).replaceAll("+", "%2B").replaceAll("/", "%2F").replace("image%2F", "image/"),
    ],
    ["codes", `data:image/png,${percent(png)}`],
    ["a parameter", base64(png, "image/png;name=red.png")],
    ["capitals", base64(png, "IMAGE/PNG").replace("data:", "DATA:").replace("base64", "BASE64")],
    ["no particular type", base64(png, "application/octet-stream")],
  ])("with %s give the image as it is", async (_, url) => {
    expect(Buffer.from(await fetchImage(url, policy))).toEqual(png);
  });

  test.each(["jpeg", "webp", "gif", "avif"] as const)("hold %s too", async (format) => {
    const bytes = await red.clone().toFormat(format).toBuffer();
    expect(Buffer.from(await fetchImage(base64(bytes, `image/${format}`), policy))).toEqual(bytes);
  });

  test.each([
    ["invalid_image_url", "data:"],
    ["invalid_image_url", "data:image/png;base64"],
    ["invalid_image_url", `data:image/png;${"x".repeat(300)},`],
    ["invalid_image_url", base64(png, "text/html")],
    ["invalid_image_url", base64(png, "")],
    ["invalid_base64", "data:image/png;base64,iVBO*w0KGgo="],
    ["invalid_base64", "data:image/png;base64,iVBO=w0KGgo="],
    ["invalid_base64", `data:image/png;base64,${"ø".repeat(100)}`],
    ["invalid_image", "data:image/png;base64,"],
    ["invalid_image", "data:image/png,"],
    [
      "invalid_image",
      base64(Buffer.from("<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>"), "image/svg+xml"),
    ],
    ["invalid_image", base64(Buffer.from("%PDF-1.7"))],
  ])("are refused as %s: %.60s", async (expected, url) => {
    expect(await code(fetchImage(url, policy))).toBe(expected);
  });

  test("are checked for size before decoding", async () => {
    const limits = { ...policy, maxBytes: 1_000_000 };
    const large = "A".repeat(50_000_000);
    for (const head of ["data:image/png;base64,", "data:image/png,", "data:image/png;base64,%41"]) {
      const before = process.memoryUsage().arrayBuffers;
      const begin = performance.now();
      expect(await code(fetchImage(head + large, limits))).toBe("image_too_large");
      expect(performance.now() - begin).toBeLessThan(3000);
      expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(10_000_000);
    }
  });

  test("have an inclusive byte limit", async () => {
    const urls = [base64(png), base64(png).replace(/.{76}/g, "$&\r\n"), `data:image/png,${percent(png)}`];
    for (const url of urls) {
      expect(await code(fetchImage(url, { ...policy, maxBytes: png.length }))).toBe("taken");
      expect(await code(fetchImage(url, { ...policy, maxBytes: png.length - 1 }))).toBe("image_too_large");
    }
  });

  test("with arbitrary bytes give an image or an error for the client", async () => {
    const head = fc.constantFrom("data:image/png,", "data:image/png;base64,", "data:image/x;base64,%", "data:", "");
    await fc.assert(
      fc.asyncProperty(head, fc.string({ unit: "binary" }), async (head, rest) => {
        const error: unknown = await fetchImage(head + rest, policy).catch((error) => error);
        expect(error).toBeInstanceOf(ImageRejectedError);
      }),
    );
  });
});

test.each([
  "file:///etc/passwd",
  "/etc/passwd",
  "ftp://example.com/a.png",
  "blob:https://example.com/1",
  "javascript:alert(1)",
  "",
  " ",
  "\ud800",
])("%s is not an accepted source of images", async (url) => {
  expect(await code(fetchImage(url, { allowRemote: true }))).toBe("invalid_image_url");
});

test("remote images need the policy's permission and pass the same checks", async () => {
  const port = await listening((request, response) => {
    const body = request.url === "/red.png" ? png : "<svg/>";
    response.writeHead(200, { "content-type": "image/png" }).end(body);
  });
  const place = { resolve: async () => ["127.0.0.1"], allow: [{ address: "127.0.0.1", port }] };
  const url = `http://images.test:${port}/red.png`;
  expect(Buffer.from(await fetchImage(url, { allowRemote: true, ...place }))).toEqual(png);
  expect(await code(fetchImage(url, { allowRemote: false, ...place }))).toBe("invalid_image_url");
  expect(await code(fetchImage(url, { allowRemote: true }))).toBe("invalid_image_url");
  const svg = `http://images.test:${port}/image.svg`;
  expect(await code(fetchImage(svg, { allowRemote: true, ...place }))).toBe("invalid_image");
});

test("an aborted download rejects immediately", async () => {
  await expect(fetchImage(base64(png), policy, AbortSignal.abort(new Error("gone")))).rejects.toThrow("gone");
});
