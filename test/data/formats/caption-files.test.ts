import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join, relative } from "node:path";
import fc from "fast-check";
import { afterAll, describe, expect, test } from "vitest";
import { type OpenOptions, openDataset } from "../../../src/data/formats/open.ts";

const root = await mkdtemp(join(tmpdir(), "formats-"));
afterAll(() => rm(root, { recursive: true }));

let count = 0;

/** A new folder with these files. */
async function folderWith(files: Readonly<Record<string, string>>): Promise<string> {
  const folder = join(root, `set-${count++}`);
  await mkdir(folder);
  for (const [name, content] of Object.entries(files)) {
    await mkdir(dirname(join(folder, name)), { recursive: true });
    await writeFile(join(folder, name), content);
  }
  return folder;
}

/** Format, pairs and invalid samples of the dataset at `folder/name`, with paths relative to the folder. */
async function read(folder: string, name = ".", options?: OpenOptions) {
  const { format, parts } = await openDataset(join(folder, name), options);
  const local = (path: string) => relative(folder, path).replaceAll("\\", "/");
  const pairs: [string, readonly string[]][] = [];
  const problems: string[] = [];
  for (const part of parts) {
    const contents = await part.read();
    for (const pair of contents.pairs) {
      expect(pair.image).toEqual({ path: pair.name });
      pairs.push([local(pair.name), pair.texts]);
    }
    problems.push(...contents.invalid.map((problem) => `${local(problem.name)}: ${problem.reason}`));
  }
  return { format, listedBy: parts.map(({ path }) => local(path)), pairs, problems };
}

describe("flickr8k", () => {
  test("lists images in order of first appearance, with all their captions", async () => {
    const folder = await folderWith({
      "captions.txt": 'image,caption\nb.jpg,A dog .\na.jpg,"A cat, asleep"\nb.jpg,Two dogs\n',
      "Images/a.jpg": "",
    });
    expect(await read(folder)).toEqual({
      format: "flickr8k",
      listedBy: ["captions.txt"],
      pairs: [
        ["Images/b.jpg", ["A dog .", "Two dogs"]],
        ["Images/a.jpg", ["A cat, asleep"]],
      ],
      problems: [],
    });
  });
});

describe("cc_sbu_align", () => {
  test("finds an image by numeric or string id, with any extension", async () => {
    const folder = await folderWith({
      "filter_cap.json": JSON.stringify({
        annotations: [
          { image_id: "2", caption: "The image shows a man ." },
          { image_id: 10, caption: "A bridge." },
          { image_id: "3", caption: "Nobody has it." },
          { image_id: "../secret", caption: "Outside." },
          { image_id: "10", caption: "  " },
        ],
      }),
      "image/2.jpg": "",
      "image/10.png": "",
      "secret.jpg": "",
    });
    expect(await read(folder)).toEqual({
      format: "cc_sbu_align",
      listedBy: ["filter_cap.json"],
      pairs: [
        ["image/2.jpg", ["The image shows a man ."]],
        ["image/10.png", ["A bridge."]],
      ],
      problems: [
        `filter_cap.json, annotation 3: ${join(folder, "image", "3.jpg")} does not exist`,
        `filter_cap.json, annotation 4: ${join(folder, "secret.jpg")} does not exist`,
        "filter_cap.json, annotation 5: has no text",
      ],
    });
  });

  test("errors name the file and the key", async () => {
    const wrong = await folderWith({ "filter_cap.json": '{"annotations": [{"image_id": "2"}]}' });
    await expect(read(wrong)).rejects.toThrow(/filter_cap\.json: .*\n.*annotations\[0\]\.caption/);
    const noImages = await folderWith({ "filter_cap.json": '{"annotations": []}' });
    await expect(read(noImages)).rejects.toThrow(/image cannot be read/);
  });
});

describe("coco", () => {
  const captions = JSON.stringify({
    info: { year: 2017 },
    images: [
      { id: 9, file_name: "000000000009.jpg", height: 480 },
      { id: 25, file_name: "000000000025.jpg" },
      { id: 30, file_name: "000000000030.jpg" },
      { id: 31, file_name: "../../31.jpg" },
    ],
    annotations: [
      { id: 1, image_id: 25, caption: "A giraffe.\n" },
      { id: 2, image_id: 9, caption: "Boxes of food." },
      { id: 3, image_id: 25, caption: "Two giraffes." },
      { id: 4, image_id: 77, caption: "Of no image." },
      { id: 5, image_id: 31, caption: "Outside." },
    ],
  });
  const expected = (folder: string, images: string) => ({
    format: "coco",
    listedBy: ["annotations/captions_val2017.json"],
    pairs: [
      [`${images}/000000000025.jpg`, ["A giraffe.\n", "Two giraffes."]],
      [`${images}/000000000009.jpg`, ["Boxes of food."]],
    ],
    problems: [
      "annotations/captions_val2017.json, annotation 4: image 77 is not in the list of images",
      `annotations/captions_val2017.json, annotation 5: names an image outside of ${join(folder, images)}`,
      "annotations/captions_val2017.json, image 30: has no caption",
    ],
  });

  test("finds the images in the usual folders", async () => {
    const folder = await folderWith({
      "annotations/captions_val2017.json": captions,
      "train2017/000000000001.jpg": "",
      "val2017/000000000025.jpg": "",
    });
    expect(await read(folder, "annotations/captions_val2017.json")).toEqual(expected(folder, "val2017"));
  });

  test("uses the given folder, and lists the searched folders if none contains an image", async () => {
    const folder = await folderWith({ "annotations/captions_val2017.json": captions });
    const path = "annotations/captions_val2017.json";
    expect(await read(folder, path, { images: join(folder, "mine") })).toEqual(expected(folder, "mine"));
    const looked = [join(folder, "annotations"), join(folder, "annotations", "val2014"), join(folder, "images")];
    for (const place of looked) await expect(read(folder, path)).rejects.toThrow(place);
  });
});

describe("tables", () => {
  test("csv and tsv: images are in Images/ if it exists, else next to the table", async () => {
    const folder = await folderWith({
      "a.csv": "caption,image\nA dog,sub/1.jpg\n,2.jpg\nX,../3.jpg\nX,sub/../4.jpg\nX,/etc/5.jpg\nX,\n",
      "b.tsv": 'image\ttext\n1.jpg\tA "dog", here\n',
    });
    expect(await read(folder, "a.csv")).toEqual({
      format: "csv",
      listedBy: ["a.csv"],
      pairs: [
        ["sub/1.jpg", ["A dog"]],
        ["4.jpg", ["X"]],
      ],
      problems: [
        "a.csv, record 2: has no text",
        `a.csv, record 3: names an image outside of ${folder}`,
        `a.csv, record 5: names an image outside of ${folder}`,
        "a.csv, record 6: names no image",
      ],
    });
    await mkdir(join(folder, "Images"));
    expect((await read(folder, "b.tsv")).pairs).toEqual([["Images/1.jpg", ['A "dog", here']]]);
    // Outside of Images/, but within the dataset.
    expect((await read(folder, "a.csv")).pairs.map(([name]) => name)).toEqual([
      "Images/sub/1.jpg",
      "3.jpg",
      "Images/4.jpg",
    ]);
  });

  test("jsonl: one or more captions per line; reports invalid lines", async () => {
    const folder = await folderWith({
      "a.jsonl": [
        '{"image": "1.jpg", "caption": "One"}',
        '{"image": "2.jpg", "texts": ["Two", "Zwei", 2]}\r',
        "",
        '{"image": "1.jpg", "text": "Uno"}',
        '{"image": "3.jpg"}',
        '{"caption": "Of what?"}',
        "[1, 2]",
        '{"image": "4.jpg"',
      ].join("\n"),
    });
    const { problems, ...listed } = await read(folder, "a.jsonl");
    expect(listed).toEqual({
      format: "jsonl",
      listedBy: ["a.jsonl"],
      pairs: [
        ["1.jpg", ["One", "Uno"]],
        ["2.jpg", ["Two", "Zwei"]],
      ],
    });
    expect(problems).toEqual([
      "a.jsonl, line 5: has no text",
      "a.jsonl, line 6: names no image",
      "a.jsonl, line 7: names no image",
      expect.stringMatching(/^a\.jsonl, line 8: is not valid JSON: /),
    ]);
  });

  test("a table without a usable entry is an error", async () => {
    const folder = await folderWith({
      "empty.csv": "image,caption\n",
      "wrong.csv": "image,words\n1.jpg,x\n",
      "all.jsonl": "1\n2\n",
    });
    await expect(read(folder, "empty.csv")).rejects.toThrow(/empty\.csv lists no images/);
    await expect(read(folder, "wrong.csv")).rejects.toThrow(/wrong\.csv, record 1: expected the columns/);
    await expect(read(folder, "all.jsonl")).rejects.toThrow(
      /all\.jsonl, line 1: names no image; the file has no other usable entry/,
    );
  });

  test("CSV and JSON lines preserve any names and captions", () => {
    const rows = fc.array(
      fc.record({
        image: fc.stringMatching(/^[a-zé ,"]{0,8}x\.jpg$/),
        caption: fc.stringMatching(/^"?[a-z,é\n ]{0,9}\.$/),
      }),
      { minLength: 1, maxLength: 8 },
    );
    const quoted = (text: string) => `"${text.replaceAll('"', '""')}"`;
    return fc.assert(
      fc.asyncProperty(rows, async (rows) => {
        const folder = await folderWith({
          "t.csv": `image,caption\n${rows.map(({ image, caption }) => `${quoted(image)},${quoted(caption)}`).join("\n")}`,
          "t.jsonl": rows.map((row) => JSON.stringify(row)).join("\n"),
        });
        const expected = new Map<string, string[]>();
        for (const { image, caption } of rows) expected.set(image, [...(expected.get(image) ?? []), caption]);
        expect((await read(folder, "t.jsonl")).pairs).toEqual([...expected]);
        expect((await read(folder, "t.csv")).pairs).toEqual([...expected]);
      }),
      { numRuns: 50 },
    );
  });
});

describe("openDataset", () => {
  test("lists the supported formats if none matches", async () => {
    const folder = await folderWith({ "notes.md": "" });
    for (const path of [folder, join(folder, "notes.md"), join(folder, "missing"), join(folder, "{0..1}.zip")]) {
      const error = await openDataset(path).then(
        () => undefined,
        (error: Error) => error.message,
      );
      expect(error).toContain(path);
      for (const name of ["web_shards", "cc_sbu_align", "flickr8k", "coco", "csv", "jsonl", "images"])
        expect(error).toContain(name);
      expect(error).toContain("filter_cap.json");
    }
  });

  test("requires the format if two match", async () => {
    const folder = await folderWith({ "captions.txt": "image,caption\n1.jpg,x\n", "0.tar": "" });
    await expect(openDataset(folder)).rejects.toThrow(
      /matches the formats web_shards and flickr8k; set the format explicitly/,
    );
    expect((await read(folder, ".", { format: "flickr8k" })).pairs).toEqual([["Images/1.jpg", ["x"]]]);
  });

  test("an option that the format does not support is an error", async () => {
    const folder = await folderWith({ "captions.txt": "image,caption\n1.jpg,x\n" });
    await expect(openDataset(folder, { filter: {} })).rejects.toThrow(/flickr8k does not support the option "filter"/);
    await expect(openDataset(folder, { images: "x" })).rejects.toThrow(/flickr8k does not support the option "images"/);
  });
});
