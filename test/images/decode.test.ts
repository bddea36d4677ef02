import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import sharp, { type Sharp } from "sharp";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { ImageError, readImage } from "../../src/images/decode.ts";

let folder = "";
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "image-"));
});
afterAll(() => rm(folder, { recursive: true }));

/** Four colours, by row: red, green, blue / white, black, yellow. */
const colours = [255, 0, 0, 0, 255, 0, 0, 0, 255, 255, 255, 255, 0, 0, 0, 255, 255, 0];

function raw(values: readonly number[], width: number, height: number) {
  const channels = (values.length / width / height) as 1 | 2 | 3 | 4;
  return sharp(Uint8Array.from(values), { raw: { width, height, channels } });
}

async function read(image: Sharp) {
  const { width, height, data } = await readImage(await image.toBuffer());
  return { width, height, data: [...data] };
}

/** A PNG of one colour whose header claims another size than its data has. */
async function pngClaiming(width: number, height: number): Promise<Buffer> {
  const png = await raw(colours, 3, 2).png().toBuffer();
  png.writeUInt32BE(width, 16);
  png.writeUInt32BE(height, 20);
  png.writeUInt32BE(crc32(png.subarray(12, 29)), 29);
  return png;
}

function crc32(bytes: Uint8Array): number {
  let crc = -1;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return (crc ^ -1) >>> 0;
}

describe("kinds of images", () => {
  test("RGB, from bytes and from a file", async () => {
    const png = await raw(colours, 3, 2).png().toBuffer();
    const path = join(folder, "colours.png");
    await writeFile(path, png);
    const expected = { width: 3, height: 2, data: Uint8Array.from(colours) };
    expect(await readImage(path)).toEqual(expected);
    expect(await readImage(png)).toEqual(expected);
  });

  test.each([
    [1, 3, 2, colours],
    [2, 3, 2, [0, 0, 255, 0, 255, 0, 255, 0, 0, 255, 255, 0, 0, 0, 0, 255, 255, 255]],
    [3, 3, 2, [255, 255, 0, 0, 0, 0, 255, 255, 255, 0, 0, 255, 0, 255, 0, 255, 0, 0]],
    [6, 2, 3, [255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 255, 0, 255, 255, 0, 0, 0, 255]],
    [8, 2, 3, [0, 0, 255, 255, 255, 0, 0, 255, 0, 0, 0, 0, 255, 0, 0, 255, 255, 255]],
  ])("EXIF orientation %i is set upright", async (orientation, width, height, data) => {
    expect(await read(raw(colours, 3, 2).png().withMetadata({ orientation }))).toEqual({ width, height, data });
  });

  test("transparency is dropped, not blended", async () => {
    const expected = { width: 2, height: 1, data: [100, 1, 2, 50, 3, 4] };
    const rgba = raw([100, 1, 2, 0, 50, 3, 4, 128], 2, 1);
    expect(await read(rgba.clone().png())).toEqual(expected);
    expect(await read(rgba.clone().webp({ lossless: true, exact: true }))).toEqual(expected);
    expect(await read(raw([100, 0, 50, 255], 2, 1).png())).toEqual({ ...expected, data: [100, 100, 100, 50, 50, 50] });
  });

  test("16 bits are reduced to 8", async () => {
    const rgb16 = sharp(Uint16Array.of(65535, 32768, 0, 257, 514, 771), { raw: { width: 2, height: 1, channels: 3 } });
    const png = await rgb16.toColourspace("rgb16").png().toBuffer();
    expect((await sharp(png).metadata()).depth).toBe("ushort");
    expect([...(await readImage(png)).data]).toEqual([255, 128, 0, 1, 2, 3]);
    const grey16 = sharp(Uint16Array.of(65535, 32768), { raw: { width: 2, height: 1, channels: 1 } });
    expect((await read(grey16.toColourspace("grey16").png())).data).toEqual([255, 255, 255, 128, 128, 128]);
  });

  test("grey and palette become RGB", async () => {
    expect((await read(raw([7, 200], 2, 1).toColourspace("b-w").png())).data).toEqual([7, 7, 7, 200, 200, 200]);
    expect((await read(raw(colours, 3, 2).png({ palette: true }))).data).toEqual(colours);
  });

  test("CMYK is converted by arithmetic", async () => {
    const cmyk = await raw(colours, 3, 2).toColourspace("cmyk").tiff({ compression: "none" }).toBuffer();
    const ink = await sharp(cmyk).pipelineColourspace("cmyk").toColourspace("cmyk").raw().toBuffer();
    const { data } = await readImage(cmyk);
    const expected = Array.from(data, (_, i) => {
      const pixel = Math.floor(i / 3) * 4;
      return ((255 - (ink[pixel + (i % 3)] ?? 0)) * (255 - (ink[pixel + 3] ?? 0))) / 255;
    });
    expect(expected.every((value, i) => Math.abs(value - (data[i] ?? 0)) <= 0.5)).toBe(true);
  });

  test("an animation gives its first frame", async () => {
    const frame = (background: string) =>
      sharp({ create: { width: 4, height: 3, channels: 3, background } })
        .png()
        .toBuffer();
    const gif = await sharp([await frame("red"), await frame("blue")], { join: { animated: true } })
      .gif()
      .toBuffer();
    const webp = await sharp(gif, { animated: true }).webp({ lossless: true }).toBuffer();
    expect((await sharp(webp).metadata()).pages).toBe(2);
    for (const animation of [gif, webp]) {
      const { width, height, data } = await readImage(animation);
      expect([width, height, ...data.subarray(0, 3)]).toEqual([4, 3, 255, 0, 0]);
    }
  });
});

describe("bad input", () => {
  test("a decompression bomb is refused by its header", async () => {
    const bomb = await pngClaiming(60_000, 60_000);
    await expect(readImage(bomb)).rejects.toThrow("too large: 60000 x 60000 pixels; the limit is 100000000");
    await expect(readImage(await pngClaiming(3, 2), { maxPixels: 5 })).rejects.toThrow("3 x 2 pixels; the limit is 5");
    const svg = '<svg xmlns="http://www.w3.org/2000/svg" width="100000" height="100000"/>';
    await expect(readImage(Buffer.from(svg))).rejects.toThrow("100000 x 100000 pixels");
  });

  test("a file with too many bytes is refused", async () => {
    const png = await raw(colours, 3, 2).png().toBuffer();
    await expect(readImage(png, { maxBytes: 10 })).rejects.toThrow(`has ${png.length} bytes; the limit is 10`);
  });

  test("a truncated image", async () => {
    const noise = raw(
      Array.from({ length: 64 * 64 * 3 }, (_, i) => (i * 7919) % 256),
      64,
      64,
    );
    for (const image of [await noise.clone().jpeg().toBuffer(), await noise.clone().png().toBuffer()]) {
      const path = join(folder, "cut");
      await writeFile(path, image.subarray(0, image.length / 2));
      await expect(readImage(path)).rejects.toThrow(`${path} is damaged or truncated`);
    }
  });

  test("errors name files that are not images", async () => {
    const text = join(folder, "notes.txt");
    await writeFile(text, "no image");
    await expect(readImage(text)).rejects.toThrow(`${text} is not an image that can be read`);
    await expect(readImage(folder)).rejects.toThrow(`${folder} is a folder, not an image`);
    await expect(readImage(join(folder, "none.png"))).rejects.toThrow(
      "none.png cannot be read: no such file or folder",
    );
    await expect(readImage(new Uint8Array(0))).rejects.toThrow("is empty (0 bytes)");
  });

  test("damaged bytes are an ImageError or an image of the stated size", async () => {
    const formats = await Promise.all(
      (["png", "jpeg", "webp", "gif", "tiff"] as const).map((format) => raw(colours, 3, 2).toFormat(format).toBuffer()),
    );
    const damaged = fc.oneof(
      fc.uint8Array({ maxLength: 300 }),
      fc
        .tuple(fc.constantFrom(...formats), fc.array(fc.tuple(fc.nat(), fc.nat({ max: 255 })), { minLength: 1 }))
        .map(([bytes, changes]) => {
          const copy = Uint8Array.from(bytes);
          for (const [at, byte] of changes) copy[at % copy.length] = byte;
          return copy;
        }),
    );
    await fc.assert(
      fc.asyncProperty(damaged, async (bytes) => {
        const result = await readImage(bytes, { maxPixels: 1_000_000 }).catch((error: unknown) => error);
        if (result instanceof Error) expect(result).toBeInstanceOf(ImageError);
        else {
          const { width, height, data } = result as Awaited<ReturnType<typeof readImage>>;
          expect(data.length).toBe(width * height * 3);
        }
      }),
      { numRuns: 200 },
    );
  });
});
