import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import sharp from "sharp";
import { beforeEach, describe, expect, test } from "vitest";
import { exportPairs } from "../../src/curation/export.ts";
import type { CurationStore } from "../../src/curation/store.ts";
import { openDataset } from "../../src/data/formats/open.ts";
import type { FileSource } from "../../src/files/file.ts";
import { readImage } from "../../src/images/decode.ts";
import { skipWithout } from "../helpers/capabilities.ts";
import { image as example } from "../helpers/cli-command.ts";
import { openProject } from "../helpers/curation-projects.ts";
import { temporaryFolder } from "../helpers/tiny-model.ts";

const root = temporaryFolder();
const cat = readFileSync(example("cat.jpg"));

let folder: string;
let target: string;
let store: CurationStore;
let count = 0;
beforeEach(() => {
  folder = join(root, String(count++));
  mkdirSync(folder);
  target = join(folder, "set");
  store = openProject(folder);
});

const sha256 = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex");
const exported = (id: number) => readFileSync(join(target, "image", `${id}.jpg`));

/** An image file with a text of its own, kept by a person unless said otherwise; the image's id. */
function add(name: string, bytes: Uint8Array, { text = `It is ${name}.`, says = "keep" as "keep" | "drop" | "" } = {}) {
  writeFileSync(join(folder, name), bytes);
  return addSpan(name, { path: join(folder, name) }, bytes, text, says);
}

function addSpan(
  name: string,
  source: FileSource,
  bytes: Uint8Array,
  text: string,
  says: "keep" | "drop" | "",
): number {
  store.addImages([{ name, source, sha256: sha256(bytes) }]);
  const image = store.entries().at(-1)?.image.id ?? 0;
  const { id } = store.addVersion({ image, kind: "described", text, author: "nano", prompt: "Describe it." });
  if (says) store.addVerdict({ version: id, decision: says, judge: "person", author: "ada" });
  return image;
}

/** A small image, grey to the left, of colours to the right. */
function drawing() {
  const data = Buffer.from(Array.from({ length: 32 * 16 * 3 }, (_, i) => (i % 96 < 48 ? 90 : (i * 7) % 256)));
  return sharp(data, { raw: { width: 32, height: 16, channels: 3 } });
}

/** Name and text of all pairs that training would read. */
async function pairsOf(path: string): Promise<(readonly [string, readonly string[]])[]> {
  const { format, parts } = await openDataset(path);
  expect(format).toBe("cc_sbu_align");
  const contents = await Promise.all(parts.map((part) => part.read()));
  expect(contents.flatMap(({ invalid }) => invalid)).toEqual([]);
  return contents.flatMap(({ pairs }) => pairs.map(({ image, texts }) => [image.path, texts] as const));
}

describe("an export", () => {
  test("is read by training, with JPEGs copied byte by byte", async () => {
    const first = add("cat.jpg", cat);
    add("dropped.jpg", await drawing().jpeg().toBuffer(), { says: "drop" });
    const png = await drawing().png().toBuffer();
    const second = add("drawing.png", png, { text: 'A "drawing".\nIt is – <b>small</b>. 犬' });
    add("open.jpg", await drawing().jpeg({ quality: 50 }).toBuffer(), { says: "" });
    store.addImages([{ name: "empty.jpg", source: { path: "empty.jpg" }, sha256: "e" }]);

    expect(await exportPairs(store, target)).toEqual({
      folder: target,
      pairs: 2,
      copied: 1,
      converted: 1,
      refused: [],
      left: { dropped: 1, open: 1, empty: 1 },
    });
    expect(await pairsOf(target)).toEqual([
      [join(target, "image", `${first}.jpg`), ["It is cat.jpg."]],
      [join(target, "image", `${second}.jpg`), ['A "drawing".\nIt is – <b>small</b>. 犬']],
    ]);
    expect(exported(first).equals(cat)).toBe(true);
    const { annotations } = JSON.parse(readFileSync(join(target, "filter_cap.json"), "utf8"));
    expect(annotations[0]).toEqual({ image_id: String(first), caption: "It is cat.jpg." });
    expect(readdirSync(folder).filter((name) => /partial|replaced/.test(name))).toEqual([]);
  });

  test("with `unreviewed` has both kept and open pairs, with stable ids", async () => {
    add("a.jpg", cat, { says: "drop" });
    const open = add("b.jpg", await drawing().jpeg().toBuffer(), { says: "" });
    await expect(exportPairs(store, target)).rejects.toThrow(
      "Nothing to export: of 2 images 1 are not reviewed, 1 are dropped and 0 have no text; review them, or pass --unreviewed",
    );
    expect(existsSync(target)).toBe(false);
    expect(await exportPairs(store, target, { unreviewed: true })).toMatchObject({ pairs: 1, left: { dropped: 1 } });
    expect(readdirSync(join(target, "image"))).toEqual([`${open}.jpg`]);
    const kept = add("c.jpg", await drawing().jpeg({ quality: 50 }).toBuffer(), { says: "keep" });
    const options = { unreviewed: true, overwrite: true };
    expect(await exportPairs(store, target, options)).toMatchObject({ pairs: 2, left: { dropped: 1 } });
    expect(readdirSync(join(target, "image")).sort()).toEqual([`${open}.jpg`, `${kept}.jpg`]);
    // Without it, only the kept one.
    expect(await exportPairs(store, target, { overwrite: true })).toMatchObject({ pairs: 1, left: { open: 1 } });
    expect(readdirSync(join(target, "image"))).toEqual([`${kept}.jpg`]);
  });

  test("includes images inside larger files", async () => {
    const bytes = await drawing().jpeg().toBuffer();
    writeFileSync(join(folder, "a.tar"), Buffer.concat([Buffer.alloc(512), bytes, Buffer.alloc(99)]));
    const source = { path: join(folder, "a.tar"), range: { offset: 512, length: bytes.length } };
    const id = addSpan("a.tar/1", source, bytes, "A drawing.", "keep");
    expect(await exportPairs(store, target)).toMatchObject({ pairs: 1, copied: 1 });
    expect(exported(id).equals(bytes)).toBe(true);
  });
});

describe("an image becomes an upright JPEG", () => {
  test.each([
    ["PNG with transparency", () => drawing().ensureAlpha(0.5).png().toBuffer()],
    ["grey PNG of 16 bits", () => drawing().toColourspace("grey16").png().toBuffer()],
    ["WebP", () => drawing().webp({ lossless: true }).toBuffer()],
    ["GIF", () => drawing().gif().toBuffer()],
    ["TIFF in CMYK", () => drawing().toColourspace("cmyk").tiff().toBuffer()],
    ["JPEG that lies on its side", () => drawing().withMetadata({ orientation: 6 }).jpeg().toBuffer()],
    ["PNG named .jpg", () => drawing().png().toBuffer()],
  ])("%s", async (_, encode) => {
    const bytes = await encode();
    const id = add("image.jpg", bytes);
    expect(await exportPairs(store, target)).toMatchObject({ pairs: 1, copied: 0, converted: 1 });
    const { format, orientation, space, channels } = await sharp(exported(id)).metadata();
    expect({ format, orientation, space, channels }).toEqual({
      format: "jpeg",
      orientation: undefined,
      space: "srgb",
      channels: 3,
    });
    const [before, after] = [await readImage(bytes), await readImage(exported(id))];
    expect([after.width, after.height]).toEqual([before.width, before.height]);
    const differences = after.data.map((value, i) => Math.abs(value - (before.data[i] ?? 0)));
    expect(differences.reduce((sum, value) => sum + value, 0) / differences.length).toBeLessThan(6);
  });

  test("unless it already is one, whatever its name and colours", async () => {
    const cmyk = await drawing().toColourspace("cmyk").jpeg().toBuffer();
    const id = add("image.png", cmyk);
    expect(await exportPairs(store, target)).toMatchObject({ copied: 1 });
    expect(exported(id).equals(cmyk)).toBe(true);
  });
});

test("writes the provenance of each pair", async () => {
  const png = await drawing().png().toBuffer();
  const image = add("drawing.png", png, { text: "a  drawing", says: "" });
  const described = store.entry(image)?.current?.id;
  const polished = store.addVersion({
    image,
    parent: described,
    kind: "polished",
    text: "A drawing.",
    author: "smollm2",
  });
  store.addVerdict({ version: polished.id, decision: "keep", judge: "rules", author: "0123456789ab" });
  const edited = store.addVersion({
    image,
    parent: polished.id,
    kind: "edited",
    text: "A small drawing.",
    author: "ada",
  });
  const worse = store.addVersion({ image, parent: edited.id, kind: "edited", text: "drwaing", author: "bob" });
  store.undo("bob");
  store.addVerdict({ version: worse.id + 1, decision: "keep", judge: "person", author: "ada" });
  add("cat.jpg", cat);
  await exportPairs(store, target);
  const lines = readFileSync(join(target, "provenance.jsonl"), "utf8").trimEnd().split("\n");
  expect(lines).toHaveLength(2);
  const at = expect.stringMatching(/^\d{4}-\d\d-\d\dT[\d:.]+Z$/);
  expect(JSON.parse(lines[0] ?? "")).toEqual({
    image_id: String(image),
    name: "drawing.png",
    sha256: sha256(png),
    image_sha256: sha256(exported(image)),
    versions: [
      { kind: "described", author: "nano", prompt: "Describe it.", text: "a  drawing", at },
      { kind: "polished", author: "smollm2", text: "A drawing.", at },
      { kind: "edited", author: "ada", text: "A small drawing.", at },
      { kind: "edited", author: "bob", text: "drwaing", at },
      { kind: "edited", author: "bob", text: "A small drawing.", undoes: 4, at },
    ],
    reviews: [{ author: "ada", decision: "keep", version: 5, at }],
  });
});

describe("images that are missing or have changed", () => {
  test("are reported and skipped", async () => {
    const good = add("good.jpg", cat);
    add("changed.jpg", await drawing().jpeg().toBuffer());
    writeFileSync(join(folder, "changed.jpg"), await drawing().jpeg({ quality: 10 }).toBuffer());
    add("gone.jpg", await drawing().jpeg({ quality: 20 }).toBuffer());
    renameSync(join(folder, "gone.jpg"), join(folder, "elsewhere.jpg"));
    add("broken.png", (await drawing().png().toBuffer()).subarray(0, 60));
    add("silent.jpg", await drawing().jpeg({ quality: 30 }).toBuffer(), { text: " \n" });
    const { pairs, refused } = await exportPairs(store, target);
    expect(pairs).toBe(1);
    expect(refused.map(({ name, reason }) => `${name}: ${reason}`)).toEqual([
      `changed.jpg: ${join(folder, "changed.jpg")} has changed since it was added to the project (its SHA-256 differs)`,
      `gone.jpg: ${join(folder, "gone.jpg")} does not exist any more`,
      expect.stringMatching(/^broken\.png: broken\.png is /),
      "silent.jpg: the text is empty",
    ]);
    expect(readdirSync(join(target, "image"))).toEqual([`${good}.jpg`]);
  });

  test("are not exported as an empty dataset", async () => {
    add("gone.jpg", cat);
    renameSync(join(folder, "gone.jpg"), join(folder, "elsewhere.jpg"));
    await expect(exportPairs(store, target)).rejects.toThrow(
      /^None of the 1 images can be exported; first problem: gone\.jpg: /,
    );
    expect(readdirSync(folder).filter((name) => name.startsWith("set"))).toEqual([]);
  });
});

describe("an existing folder", () => {
  test("is replaced only with overwrite", async () => {
    add("cat.jpg", cat);
    mkdirSync(target);
    await exportPairs(store, target);
    const before = readFileSync(join(target, "filter_cap.json"), "utf8");
    const second = add("drawing.jpg", await drawing().jpeg().toBuffer());
    await expect(exportPairs(store, target)).rejects.toThrow(
      "set already contains a dataset; pass --overwrite to replace it",
    );
    expect(readFileSync(join(target, "filter_cap.json"), "utf8")).toBe(before);
    expect(await exportPairs(store, `${target}/`, { overwrite: true })).toMatchObject({ pairs: 2 });
    expect((await pairsOf(target)).map(([path]) => path)).toContain(join(target, "image", `${second}.jpg`));
    expect(readdirSync(folder).filter((name) => name.startsWith("set"))).toEqual(["set"]);
  });

  test("is never replaced if it contains other files or images of the project", async () => {
    const bytes = await drawing().jpeg().toBuffer();
    mkdirSync(join(target, "image"), { recursive: true });
    writeFileSync(join(target, "diary.txt"), "dear diary");
    add("cat.jpg", cat);
    const again = () => exportPairs(store, target, { overwrite: true });
    await expect(again()).rejects.toThrow("set contains other files (diary.txt); choose a folder that does not exist");
    renameSync(join(target, "diary.txt"), join(target, "filter_cap.json"));
    add(join("set", "image", "1.jpg"), bytes);
    await expect(again()).rejects.toThrow(
      /set contains images of the project \(set.image.1\.jpg\); choose another folder/,
    );
    expect(readFileSync(join(target, "image", "1.jpg")).equals(bytes)).toBe(true);
    await expect(exportPairs(store, join(folder, "cat.jpg"))).rejects.toThrow("cat.jpg is a file; choose a folder");
  });

  test("is never replaced if a link in its path leads to images of the project", async () => {
    mkdirSync(join(target, "image"), { recursive: true });
    writeFileSync(join(target, "filter_cap.json"), "{}");
    symlinkSync(folder, join(folder, "link"), "junction");
    add(join("link", "set", "image", "1.jpg"), cat);
    await expect(exportPairs(store, target, { overwrite: true })).rejects.toThrow("contains images of the project");
    await expect(exportPairs(store, join(folder, "link", "set"), { overwrite: true })).rejects.toThrow(
      "contains images",
    );
    expect(exported(1).equals(cat)).toBe(true);
  });

  test("with the name of a replaced dataset but other files is not deleted", async () => {
    add("cat.jpg", cat);
    mkdirSync(`${target}.replaced`);
    writeFileSync(join(`${target}.replaced`, "diary.txt"), "dear diary");
    const exported = () => exportPairs(store, target, { overwrite: true });
    await expect(exported()).rejects.toThrow(
      /set\.replaced is needed to replace .*set, but contains other files \(diary\.txt\)/,
    );
    mkdirSync(target);
    await expect(exported()).rejects.toThrow("diary.txt");
    expect(readFileSync(join(`${target}.replaced`, "diary.txt"), "utf8")).toBe("dear diary");
  });

  test("is unchanged if the export is aborted", async () => {
    add("cat.jpg", cat);
    await exportPairs(store, target);
    add("drawing.jpg", await drawing().jpeg().toBuffer());
    const controller = new AbortController();
    const onProgress = (done: number) => done === 1 && controller.abort(new Error("stopped"));
    const stopped = exportPairs(store, target, { overwrite: true, signal: controller.signal, onProgress });
    await expect(stopped).rejects.toThrow("stopped");
    expect(await pairsOf(target)).toHaveLength(1);
    expect(readdirSync(folder).filter((name) => name.startsWith("set"))).toEqual(["set"]);
  });

  test("is restored after a killed export, whose temporary files are removed", async () => {
    add("cat.jpg", cat);
    await exportPairs(store, target);
    renameSync(target, `${target}.replaced`);
    const remains = `${target}.0123.partial`;
    mkdirSync(join(remains, "image"), { recursive: true });
    utimesSync(join(remains, "image"), 0, 0);
    utimesSync(remains, 0, 0);
    mkdirSync(join(`${target}.4567.partial`, "image"), { recursive: true });
    await expect(exportPairs(store, target)).rejects.toThrow("pass --overwrite to replace it");
    expect(await pairsOf(target)).toHaveLength(1);
    await exportPairs(store, target, { overwrite: true });
    // The other one may belong to an export that is still running.
    expect(readdirSync(folder).filter((name) => name.startsWith("set"))).toEqual(["set", "set.4567.partial"]);
  });
});

/** Whether this process may mount a small disk to fill it up. */
function smallDisk(path: string): boolean {
  mkdirSync(path);
  try {
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=400k", "tmpfs", path], { stdio: "ignore" });
    return true;
  } catch {
    return false;
  }
}

test("reports a full disk and keeps the old dataset", async (context) => {
  const disk = join(folder, "disk");
  if (!smallDisk(disk)) return skipWithout(context, "mount", "only root may mount a disk");
  try {
    const noise = (seed: number) =>
      sharp({
        create: {
          width: 300,
          height: 300,
          channels: 3,
          background: "grey",
          noise: { type: "gaussian", mean: 128, sigma: 60 + seed },
        },
      });
    add("small.jpg", await drawing().jpeg().toBuffer());
    target = join(disk, "set");
    await exportPairs(store, target);
    for (let i = 0; i < 4; i++) add(`${i}.jpg`, await noise(i).jpeg({ quality: 100 }).toBuffer());
    await expect(exportPairs(store, target, { overwrite: true })).rejects.toThrow(
      `${target}: the disk is full; nothing was exported`,
    );
    expect(readdirSync(disk)).toEqual(["set"]);
    expect(await pairsOf(target)).toHaveLength(1);
  } finally {
    execFileSync("umount", [disk]);
  }
});
