/** Images that are bombs, broken, programs, or somebody else's files. */
import { crc32, deflateSync } from "node:zlib";
import sharp from "sharp";
import { describe, expect, test } from "vitest";
import { Random } from "../../../src/tensor/random.ts";
import { ask, expectAsBefore, expectError, imageQuestion } from "../../helpers/abused-server.ts";

describe("an image", () => {
  test("of 50000 x 50000 pixels in a few kilobytes is rejected by its header", async () => {
    const bomb = emptyPng(50_000, 50_000);
    const begin = performance.now();
    const answer = await ask(imageQuestion(bomb));
    expectError(answer, 400);
    expect(answer.text).toContain("image_too_large");
    expect(performance.now() - begin).toBeLessThan(5000);
  });

  test("with a header that does not match its pixels is rejected", async () => {
    for (const bytes of [
      emptyPng(4000, 4000, 10),
      emptyPng(0, 0),
      emptyPng(2 ** 31 - 1, 1),
      emptyPng(1, 2 ** 31 - 1),
    ]) {
      expectError(await ask(imageQuestion(bytes)), 400);
    }
  });

  test.each(["jpeg", "png", "webp", "gif", "avif"] as const)(
    "in %s that is cut off or damaged is refused or answered",
    async (format) => {
      const noise = {
        create: {
          width: 64,
          height: 64,
          channels: 3,
          background: "black",
          noise: { type: "gaussian", mean: 128, sigma: 60 },
        },
      } as const;
      const whole = await sharp(noise).toFormat(format).toBuffer();
      expect((await ask(imageQuestion(whole))).status).toBe(200);
      for (const share of [0.02, 0.3, 0.6, 0.9])
        expectError(await ask(imageQuestion(whole.subarray(0, whole.length * share))), 400);
      const random = new Random(1);
      for (let i = 0; i < 15; i++) {
        const damaged = Buffer.from(whole);
        for (let k = 0; k < 8; k++)
          damaged[Math.floor(random.uniform() * damaged.length)] = Math.floor(random.uniform() * 256);
        const answer = await ask(imageQuestion(damaged));
        if (answer.status !== 200) expectError(answer, 400);
      }
    },
  );

  test("with animation is reduced to its first frame", async () => {
    const frame = (background: string) =>
      sharp({ create: { width: 40, height: 30, channels: 3, background } })
        .png()
        .toBuffer();
    const frames = await Promise.all(["red", "blue", "green"].map(frame));
    const moving = await sharp(frames, { join: { animated: true } })
      .gif({ delay: [50, 50, 50] })
      .toBuffer();
    expect((await sharp(moving).metadata()).pages).toBe(3);
    const still = await sharp(frames[0]).gif().toBuffer();
    const [one, other] = [await ask(imageQuestion(moving)), await ask(imageQuestion(still))];
    expect(one.status).toBe(200);
    expect(JSON.parse(one.text).choices).toEqual(JSON.parse(other.text).choices);
  });

  test("in a format that can contain scripts is rejected under any content type", async () => {
    const svg = "<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'><rect width='9' height='9'/></svg>";
    const laughs = Array.from({ length: 9 }, (_, i) => `<!ENTITY a${i + 1} "${`&a${i};`.repeat(10)}">`).join("");
    const bomb = `<?xml version="1.0"?><!DOCTYPE svg [<!ENTITY a0 "ha">${laughs}]><svg xmlns="http://www.w3.org/2000/svg">&a9;</svg>`;
    for (const text of [
      svg,
      bomb,
      `\n${svg}`,
      `<?xml version="1.0"?>${svg}`,
      "%PDF-1.7\n",
      "%!PS-Adobe",
      "P6 9 9 255\n",
    ]) {
      for (const type of ["svg+xml", "png"]) {
        const answer = await ask(imageQuestion(`data:image/${type};base64,${Buffer.from(text).toString("base64")}`));
        expectError(answer, 400);
        expect(answer.text).toContain("invalid_image");
      }
    }
  });

  test.each([
    "file:///etc/passwd",
    "/etc/passwd",
    "http://127.0.0.1/",
    "http://localhost:1/",
    "x",
    "data:",
    "javascript:1",
    "C:\\image.png",
  ])("at %s is not looked for", async (url) => {
    const answer = await ask(imageQuestion(url));
    expectError(answer, 400);
    expect(answer.text).toContain("invalid_image_url");
  });

  test("may be one of the maximum number, not of more", async () => {
    const small = await sharp({ create: { width: 3, height: 3, channels: 3, background: "red" } })
      .png()
      .toBuffer();
    expect((await ask(imageQuestion(small, small))).status).toBe(200);
    expectError(await ask(imageQuestion(...Array.from({ length: 17 }, () => small))), 400);
    expectError(await ask(imageQuestion(...Array.from({ length: 5000 }, () => small))), [400, 413]);
  });

  test("and others that exceed the limit together are rejected before decoding", async () => {
    const large = emptyPng(6000, 6000);
    const begin = performance.now();
    expectError(await ask(imageQuestion(...Array.from({ length: 16 }, () => large))), 400);
    expect(performance.now() - begin).toBeLessThan(8000);
  });
});

test("the server is unchanged afterwards", expectAsBefore);

/** A PNG of one colour whose header says width x height; of `rows` rows, packed, there is something. */
function emptyPng(width: number, height: number, rows = Math.min(height, 6000)): Buffer {
  const chunk = (name: string, data: Uint8Array) => {
    const body = Buffer.concat([Buffer.from(name), data]);
    const [length, check] = [Buffer.alloc(4), Buffer.alloc(4)];
    length.writeUInt32BE(data.length);
    check.writeUInt32BE(crc32(body));
    return Buffer.concat([length, body, check]);
  };
  const header = Buffer.alloc(13);
  header.writeUInt32BE(width, 0);
  header.writeUInt32BE(height, 4);
  // One bit a pixel, grey.
  header[8] = 1;
  const pixels = deflateSync(Buffer.alloc(rows * (1 + Math.ceil(Math.min(width, 50_000) / 8))), { level: 9 });
  const signature = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);
  return Buffer.concat([signature, chunk("IHDR", header), chunk("IDAT", pixels), chunk("IEND", new Uint8Array())]);
}
