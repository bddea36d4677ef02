import { randomBytes } from "node:crypto";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import fc from "fast-check";
import { afterAll, describe, expect, test } from "vitest";
import type { PartContents } from "../../../src/data/dataset.ts";
import { openDataset } from "../../../src/data/formats/open.ts";
import { readBytes } from "../../../src/files/file.ts";
import { type Member, paxRecord, rawMember, tarEnd, tarOf } from "../../helpers/tar-bytes.ts";

const folder = await mkdtemp(join(tmpdir(), "shards-"));
afterAll(() => rm(folder, { recursive: true }));

let written = 0;

/** Writes the bytes to a new tar file. */
async function shard(bytes: Uint8Array): Promise<string> {
  const path = join(folder, `shard-${written++}.tar`);
  await writeFile(path, bytes);
  return path;
}

async function readOnly(path: string): Promise<PartContents> {
  const { format, parts } = await openDataset(path);
  expect(format).toBe("web_shards");
  expect(parts.map((part) => part.path)).toEqual([path]);
  return (parts[0] as (typeof parts)[0]).read();
}

async function contentsOf(bytes: Uint8Array): Promise<PartContents> {
  return readOnly(await shard(bytes));
}

/** A sample as written by img2dataset. */
function sample(key: string, caption: string | null, image: string): Member[] {
  const facts = { caption, url: `https://example.org/${key}`, key, status: "success", width: 224, exif: "{}" };
  return [
    { name: `${key}.jpg`, body: image },
    { name: `${key}.json`, body: JSON.stringify(facts, undefined, 4) },
    { name: `${key}.txt`, body: caption ?? "" },
  ];
}

const texts = ({ pairs }: PartContents) => pairs.map((pair) => pair.texts);
const reasons = ({ invalid }: PartContents) => invalid.map(({ name, reason }) => `${name}: ${reason}`);

describe("samples of a shard", () => {
  test("an image is a byte range of the tar; its captions come from the json", async () => {
    const path = await shard(
      await tarOf([...sample("000000001", "A dog.", "dog"), ...sample("000000007", "A cat.", "cat!")]),
    );
    const { pairs, invalid } = await readOnly(path);
    expect(invalid).toEqual([]);
    expect(pairs.map(({ name, texts }) => ({ name, texts }))).toEqual([
      { name: `${path}/000000001`, texts: ["A dog."] },
      { name: `${path}/000000007`, texts: ["A cat."] },
    ]);
    const bytes = await Promise.all(pairs.map(({ image }) => readBytes(image)));
    expect(bytes.map((image) => new TextDecoder().decode(image))).toEqual(["dog", "cat!"]);
  });

  test("prefers captions of the json, one or a list, over the txt", async () => {
    const contents = await contentsOf(
      await tarOf([
        { name: "a.png", body: "a" },
        { name: "a.txt", body: "of the txt" },
        { name: "a.json", body: '{"caption": " of the json\\n"}' },
        { name: "b.webp", body: "b" },
        { name: "b.json", body: '{"caption": "one", "captions": ["one", "two", 3, ""]}' },
        { name: "c.jpeg", body: "c" },
        { name: "c.json", body: '{"caption": null, "similarity": 0.3}' },
        { name: "c.txt", body: "of the txt\n" },
        { name: "d.JPG", body: "d" },
        { name: "d.json", body: '{"caption": "x", "similarity": NaN}' },
        { name: "d.txt", body: "Python writes NaN" },
      ]),
    );
    expect(contents.invalid).toEqual([]);
    expect(texts(contents)).toEqual([[" of the json\n"], ["one", "two"], ["of the txt"], ["Python writes NaN"]]);
  });

  test("splits keys at the first dot of the base name; members need not be adjacent", async () => {
    const path = await shard(
      await tarOf([
        { name: "v1.5/x.jpg", body: "first" },
        { name: "./v1.5/y.jpg", body: "second" },
        { name: "v1.5/x.seg.jpg", body: "no image of x" },
        { name: "._y.jpg", body: "what macOS adds" },
        { name: "jpg", body: "no ending" },
        { name: "v1.5/y.txt", body: "Y" },
        { name: "v1.5/x.txt", body: "X" },
      ]),
    );
    const { pairs, invalid } = await readOnly(path);
    expect(invalid).toEqual([]);
    expect(pairs.map(({ name }) => name)).toEqual([`${path}/v1.5/x`, `${path}/v1.5/y`]);
    expect(pairs.map((pair) => pair.texts)).toEqual([["X"], ["Y"]]);
  });

  test("reports invalid samples with a reason", async () => {
    const path = await shard(
      await tarOf([
        { name: "good.jpg", body: "p" },
        { name: "good.txt", body: "Good" },
        { name: "blind.txt", body: "No image" },
        { name: "mute.jpg", body: "p" },
        { name: "empty.jpg", body: "p" },
        { name: "empty.txt", body: " \n" },
        { name: "broken.jpg", body: "p" },
        { name: "broken.json", body: "{" },
        { name: "long.jpg", body: "p" },
        { name: "long.txt", body: "x".repeat(2 ** 20 + 1) },
        { name: "twice.jpg", body: "p" },
        { name: "twice.png", body: "p" },
        { name: "twice.txt", body: "Which?" },
        { name: "a/../../out.jpg", body: "p" },
        { name: "/etc/out.jpg", body: "p" },
      ]),
    );
    const contents = await readOnly(path);
    expect(texts(contents)).toEqual([["Good"]]);
    expect(reasons(contents)).toEqual([
      `${path}/../out.jpg: has a path outside of the tar`,
      `${path}//etc/out.jpg: has a path outside of the tar`,
      `${path}/blind: has no image (jpg, jpeg, png, webp)`,
      `${path}/mute: has no caption`,
      `${path}/empty: has no caption`,
      expect.stringContaining(`${path}/broken: has no caption; its .json is not valid JSON: `),
      `${path}/long: has no caption; its .txt has 1048577 bytes, the limit is 1048576`,
      `${path}/twice: has 2 images: "twice.jpg", "twice.png"`,
    ]);
  });
});

describe("tar formats", () => {
  const longName = `${"folder/".repeat(30)}x`;

  test("reads names of ustar (with prefix), GNU and pax headers", async () => {
    const gnu = "ustar  \0";
    const old = "\0".repeat(8);
    const path = await shard(
      Buffer.concat([
        rawMember({ name: "a.jpg", prefix: "p".repeat(150), body: "1" }),
        rawMember({ name: "a.txt", prefix: "p".repeat(150), body: "ustar" }),
        rawMember({ name: "././@LongLink", type: "L", body: `${longName}.jpg\0`, magic: gnu }),
        rawMember({ name: longName.slice(0, 100), body: "22", magic: gnu }),
        rawMember({ name: "././@LongLink", type: "L", body: `${longName}.txt\0`, magic: gnu }),
        rawMember({ name: longName.slice(0, 100), body: "GNU", magic: gnu }),
        rawMember({ name: "pax_global_header", type: "g", body: paxRecord("comment", "anything") }),
        rawMember({ name: "PaxHeader/x", type: "x", body: paxRecord("path", `${longName}é.jpg`) }),
        rawMember({ name: "x.jpg", prefix: "folder/folder", body: "333" }),
        rawMember({ name: "PaxHeader/x", type: "x", body: paxRecord("path", `${longName}é.txt`) }),
        rawMember({ name: "x.txt", prefix: "folder/folder", body: "pax" }),
        rawMember({ name: "plain.jpg", body: "4444", magic: old }),
        rawMember({ name: "plain.txt", body: "before POSIX", magic: old }),
        tarEnd,
      ]),
    );
    const { pairs, invalid } = await readOnly(path);
    expect(invalid).toEqual([]);
    const keys = [`${"p".repeat(150)}/a`, longName, `${longName}é`, "plain"];
    expect(pairs.map(({ name }) => name)).toEqual(keys.map((key) => `${path}/${key}`));
    expect(pairs.map((pair) => pair.texts)).toEqual([["ustar"], ["GNU"], ["pax"], ["before POSIX"]]);
    expect(await Promise.all(pairs.map(async ({ image }) => (await readBytes(image)).length))).toEqual([1, 2, 3, 4]);
  });

  test("links, folders and devices have no contents, whatever their size field says", async () => {
    const size = "00000000777\0";
    const contents = await contentsOf(
      Buffer.concat([
        rawMember({ name: "folder/", type: "5", size }),
        rawMember({ name: "a.jpg", type: "1", size }),
        rawMember({ name: "b.jpg", type: "2", size }),
        rawMember({ name: "null", type: "3" }),
        rawMember({ name: "c.jpg", body: "c" }),
        rawMember({ name: "c.txt", body: "C" }),
        tarEnd,
      ]),
    );
    expect(texts(contents)).toEqual([["C"]]);
    expect(contents.invalid).toEqual([]);
  });

  test("reads base-256 sizes, and stops at impossible ones", async () => {
    const good = [rawMember({ name: "a.jpg", body: "a" }), rawMember({ name: "a.txt", body: "A" })];
    const binary = (...bytes: number[]) => String.fromCharCode(...bytes);
    const small = binary(0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3);
    const contents = await contentsOf(
      Buffer.concat([...good, rawMember({ name: "b.jpg", body: "bbb", size: small }), tarEnd]),
    );
    expect(reasons(contents)).toEqual([expect.stringMatching(/b: has no caption$/)]);

    const sizes = {
      negative: binary(...Array<number>(12).fill(0xff)),
      huge: binary(0x80, ...Array<number>(11).fill(0xff)),
      large: binary(0x80, 0, 0, 0, 0, 0x1f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff),
      octal: "77777777777\0",
      signed: "-0000000001\0",
      nothing: "\0".repeat(12),
      words: "a lot\0\0\0\0\0\0\0",
    };
    for (const [what, size] of Object.entries(sizes)) {
      for (const type of ["0", "L", "x"]) {
        const { pairs, invalid } = await contentsOf(
          Buffer.concat([...good, rawMember({ name: what, type, size }), tarEnd]),
        );
        expect(
          pairs.map((pair) => pair.texts),
          what,
        ).toEqual([["A"]]);
        expect(invalid.at(-1)?.reason, what).toMatch(/^byte 2048: .*the rest of the tar is skipped$/);
      }
    }
    const hugePax = rawMember({ name: "x", type: "x", body: paxRecord("size", "1e20") });
    const { invalid } = await contentsOf(
      Buffer.concat([...good, hugePax, rawMember({ name: "b.jpg", body: "b" }), tarEnd]),
    );
    expect(invalid.at(-1)?.reason).toMatch(/^byte 3072: the size of "b.jpg" is 1000000/);
  });
});

describe("damage", () => {
  const arbitrarySamples = fc.uniqueArray(
    fc.record({
      key: fc.stringMatching(/^[a-zé0-9_]{1,120}$/),
      image: fc.uint8Array({ maxLength: 1500 }),
      caption: fc.stringMatching(/^[a-z]{1,20}$/),
    }),
    { selector: ({ key }) => key, minLength: 1, maxLength: 6 },
  );
  const membersOf = (samples: readonly { key: string; image: Uint8Array; caption: string }[]): Member[] =>
    samples.flatMap(({ key, image, caption }) => [
      { name: `${key}.jpg`, body: image },
      { name: `${key}.json`, body: JSON.stringify({ caption }) },
    ]);

  test("reads the right bytes for any names and sizes", () =>
    fc.assert(
      fc.asyncProperty(arbitrarySamples, async (samples) => {
        const path = await shard(await tarOf(membersOf(samples)));
        const { pairs, invalid } = await readOnly(path);
        expect(invalid).toEqual([]);
        expect(pairs.map(({ name, texts }) => [name, texts])).toEqual(
          samples.map(({ key, caption }) => [`${path}/${key}`, [caption]]),
        );
        for (const [i, { image }] of pairs.entries()) expect(await readBytes(image)).toEqual(samples[i]?.image);
      }),
    ));

  test("a truncated tar lists the samples before the cut and reports the rest", () =>
    fc.assert(
      fc.asyncProperty(
        arbitrarySamples,
        fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }),
        async (samples, share) => {
          const lengths = await Promise.all(samples.map((_, i) => tarOf(membersOf(samples.slice(0, i + 1)))));
          const whole = lengths.at(-1) as Buffer;
          const cut = Math.floor(share * (whole.length - 1024));
          const before = lengths.filter((bytes) => bytes.indexOf("}", bytes.length - 1024 - 512) < cut).length;
          const path = await shard(whole.subarray(0, cut));
          if (before === 0) {
            await expect(readOnly(path)).rejects.toThrow(path);
            return;
          }
          const { pairs, invalid } = await readOnly(path);
          expect(pairs.map(({ texts }) => texts)).toEqual(samples.slice(0, before).map(({ caption }) => [caption]));
          expect(invalid.at(-1)?.name).toBe(path);
          expect(invalid.at(-1)?.reason).toMatch(/^byte \d+: /);
        },
      ),
    ));

  test("flipped bytes give fewer pairs or an error that names the file, and never hang", () =>
    fc.assert(
      fc.asyncProperty(
        arbitrarySamples,
        fc.array(fc.tuple(fc.nat(), fc.integer({ min: 1, max: 255 })), { minLength: 1, maxLength: 8 }),
        async (samples, flips) => {
          const bytes = await tarOf(membersOf(samples));
          for (const [at, change] of flips) bytes[at % bytes.length] = (bytes[at % bytes.length] as number) ^ change;
          const path = await shard(bytes);
          try {
            const { pairs } = await readOnly(path);
            for (const { image } of pairs) await readBytes(image);
          } catch (error) {
            expect(error).toBeInstanceOf(Error);
            expect((error as Error).message).toContain(path);
          }
        },
      ),
    ));

  test("random headers with a valid checksum are harmless", () =>
    fc.assert(
      fc.asyncProperty(
        fc.array(
          fc.record({
            name: fc.string({ maxLength: 30 }),
            type: fc.constantFrom("0", "\0", "1", "5", "7", "g", "x", "X", "L", "N", "K", "S", "D", "V", "Z"),
            body: fc.oneof(
              fc.uint8Array({ maxLength: 600 }),
              fc.string({ maxLength: 40 }).map((s) => ` path=${s}\n`),
            ),
            size: fc.option(fc.string({ unit: "binary-ascii", minLength: 12, maxLength: 12 }), { nil: undefined }),
          }),
          { maxLength: 5 },
        ),
        async (members) => {
          const path = await shard(Buffer.concat([...members.map(rawMember), tarEnd]));
          await readOnly(path).catch((error: Error) => expect(error.message).toContain(path));
        },
      ),
    ));
});

describe("paths", () => {
  test("lists only the tars of a folder, sorted by name", async () => {
    const path = join(folder, "set");
    await mkdir(path);
    for (const name of ["00001.tar", "00000.tar"])
      await writeFile(join(path, name), await tarOf(sample("1", "x", "p")));
    await writeFile(join(path, "00000_stats.json"), "{}");
    const { format, parts } = await openDataset(path);
    expect(format).toBe("web_shards");
    expect(parts.map((part) => part.path)).toEqual([join(path, "00000.tar"), join(path, "00001.tar")]);
    await expect(openDataset(folder, { format: "flickr8k" }).then(({ parts }) => parts[0]?.read())).rejects.toThrow(
      /captions\.txt/,
    );
  });

  test("expands braces, and reports missing files", async () => {
    const path = join(folder, "ranges");
    for (const sub of ["a", "b"]) {
      await mkdir(join(path, sub), { recursive: true });
      for (const i of [8, 9, 10]) await writeFile(join(path, sub, `${String(i).padStart(5, "0")}.tar`), tarEnd);
    }
    const { parts } = await openDataset(join(path, "{a,b}", "{00008..00010}.tar"));
    expect(parts.map((part) => part.path.slice(path.length + 1).replaceAll("\\", "/"))).toEqual([
      "a/00008.tar",
      "a/00009.tar",
      "a/00010.tar",
      "b/00008.tar",
      "b/00009.tar",
      "b/00010.tar",
    ]);
    expect(await parts[0]?.read()).toEqual({ pairs: [], invalid: [] });
    await expect(openDataset(join(path, "a", "{00007..00012}.tar"))).rejects.toThrow(
      /^3 of 6 files do not exist: .*00007\.tar, .*00011\.tar, .*00012\.tar \(/,
    );
    await expect(openDataset(join(path, "c", "{0..9}.tar"))).rejects.toThrow(
      /^10 of 10 files do not exist: .*2\.tar, \.\.\. /,
    );
    await expect(openDataset(join(path, "a", "{0..9999999}.tar"))).rejects.toThrow(/more than 1000000 files/);
  });

  test("refuses compressed tars, by name and by content", async () => {
    const bytes = gzipSync(randomBytes(1000));
    const path = join(folder, "packed.tar.gz");
    await writeFile(path, bytes);
    await expect(openDataset(path)).rejects.toThrow(/packed\.tar\.gz is compressed.*decompress it/);
    await rm(path);
    await expect(contentsOf(bytes)).rejects.toThrow(/shard-\d+\.tar: byte 0: .*compressed/);
  });
});
