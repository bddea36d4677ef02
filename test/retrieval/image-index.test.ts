import { copyFile, mkdir, readdir, readFile, rename, rm, utimes, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import fc from "fast-check";
import sharp from "sharp";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { openBlip2Folder } from "../../src/models/blip2-folder.ts";
import { Blip2RetrievalModel } from "../../src/retrieval/blip2-retrieval-model.ts";
import { type ImageIndex, type IndexOptions, updateIndex } from "../../src/retrieval/image-index.ts";
import type { RetrievalModel } from "../../src/retrieval/retrieval-model.ts";
import { float16ToFloat32 } from "../../src/tensor/float16.ts";
import { tinyBlip2, writeQFormer } from "../helpers/blip2-tiny.ts";
import { temporaryFolder } from "../helpers/tiny-model.ts";

const root = temporaryFolder();
let model: RetrievalModel;
let folder: string;
let path: string;
let count = 0;

beforeAll(async () => {
  model = new Blip2RetrievalModel(await openBlip2Folder(tinyBlip2(root)), { features: join(root, "features") });
});
afterAll(() => model.close());
beforeEach(async () => {
  folder = join(root, `images-${++count}`);
  path = join(root, `index-${count}`);
  await mkdir(folder);
});

/** Long enough ago that a file system's clock tells changes apart; each call is a second later. */
let time = Date.now() / 1000 - 100_000;

/** Writes an image of one colour, or a broken file. */
async function paint(name: string, shade: number | "broken", age: "old" | "new" = "old"): Promise<void> {
  const file = join(folder, name);
  await mkdir(dirname(file), { recursive: true });
  const background = { r: Number(shade) * 40, g: 255 - Number(shade) * 50, b: 90 };
  const bytes =
    shade === "broken"
      ? Buffer.from("no image")
      : await sharp({ create: { width: 9, height: 7, channels: 3, background } })
          .png()
          .toBuffer();
  await writeFile(file, bytes);
  if (age === "old") await utimes(file, ++time, time);
}

/** Updates the index; returns it with the number of embedded images, the problems and messages. */
async function update(options: IndexOptions = {}, at = path, by = model) {
  const log = { embedded: 0, problems: [] as string[], messages: [] as string[] };
  const counting: RetrievalModel = Object.create(by, {
    embedImages: {
      value: (pixels: readonly Float32Array[]) => {
        log.embedded += pixels.length;
        return by.embedImages(pixels);
      },
    },
  });
  const index = await updateIndex(folder, counting, at, {
    onProblem: ({ name, reason }) => log.problems.push(`${name} ${reason}`),
    onMessage: (message) => log.messages.push(message),
    ...options,
  });
  return { index, ...log };
}

/** Embeddings differ slightly with the batch size. */
function expectAlike(found: ImageIndex, expected: ImageIndex): void {
  expect({ ...found, vectors: 0 }).toEqual({ ...expected, vectors: 0 });
  const [a, b] = [found, expected].map(({ vectors }) => float16ToFloat32(vectors)) as [Float32Array, Float32Array];
  expect(a).toHaveLength(b.length);
  expect(a.every((value, i) => Math.abs(value - (b[i] as number)) < 2e-3)).toBe(true);
}

const fresh = async () => (await update({}, join(root, `fresh-${++count}`))).index;

test("indexes images in subfolders; reports a broken file once", async () => {
  await paint("b.png", 1);
  await paint("deep/er/a.png", 2);
  await paint("c.jpg", "broken");
  await writeFile(join(folder, "notes.txt"), "no image");
  await writeFile(join(folder, "empty.webp"), "");
  await utimes(join(folder, "empty.webp"), ++time, time);
  const first = await update();
  expect(first.index.names).toEqual(["b.png", "deep/er/a.png"]);
  expect(first.index.vectors).toHaveLength(2 * 8 * 32);
  expect(first.embedded).toBe(2);
  expect(first.problems).toEqual([
    expect.stringMatching(/^c\.jpg is not an image that can be read: /),
    "empty.webp is empty (0 bytes)",
  ]);
  const before = await readFile(path);
  const second = await update();
  expect(second).toEqual({ index: first.index, embedded: 0, problems: [], messages: [] });
  expect(second.index.problems).toHaveLength(2);
  expect(await readFile(path)).toEqual(before);
  // A broken image that was fixed.
  await paint("c.jpg", 3);
  expect(await update()).toMatchObject({
    embedded: 1,
    problems: [],
    index: { names: ["b.png", "c.jpg", "deep/er/a.png"] },
  });
});

test("does not embed content again that was renamed, copied, touched or moved with its folder", async () => {
  await paint("a.png", 1);
  await paint("b.png", 2);
  expect((await update()).embedded).toBe(2);
  await rename(join(folder, "a.png"), join(folder, "z.png"));
  await copyFile(join(folder, "b.png"), join(folder, "copy.png"));
  await utimes(join(folder, "b.png"), ++time, time);
  const changed = await update();
  expect(changed).toMatchObject({ embedded: 0, index: { names: ["b.png", "copy.png", "z.png"] } });
  expectAlike(changed.index, await fresh());
  const elsewhere = `${folder}-elsewhere`;
  await rename(folder, elsewhere);
  folder = elsewhere;
  expect(await update()).toMatchObject({ embedded: 0, index: { names: changed.index.names } });
});

test("notices another image of the same size written in the same moment", async () => {
  await paint("a.png", 1, "new");
  await update();
  const before = await readFile(join(folder, "a.png"));
  await paint("a.png", 2, "new");
  expect((await readFile(join(folder, "a.png"))).length).toBe(before.length);
  const { embedded, index } = await update();
  expect(embedded).toBe(1);
  expectAlike(index, await fresh());
});

const names = ["a.png", "b.png", "c/a.png", "d.jpg"];
const name = fc.constantFrom(...names);
const change = fc.oneof(
  fc.record({
    kind: fc.constant("paint" as const),
    name,
    shade: fc.constantFrom(1, 2, 3, "broken" as const),
    age: fc.constantFrom("old" as const, "new" as const),
  }),
  fc.record({ kind: fc.constant("rename" as const), name, to: name }),
  fc.record({ kind: fc.constant("copy" as const), name, to: name }),
  fc.record({ kind: fc.constantFrom("remove" as const, "touch" as const, "update" as const), name }),
);

test("after any changes, an updated index equals a rebuilt one", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(change, { minLength: 1, maxLength: 12 }), async (changes) => {
      await rm(folder, { recursive: true });
      await mkdir(join(folder, "c"), { recursive: true });
      await rm(path, { force: true });
      for (const one of changes) {
        const file = join(folder, one.name);
        const there = await readFile(file).catch(() => undefined);
        if (one.kind === "paint") await paint(one.name, one.shade, one.age);
        else if (one.kind === "update") await update();
        else if (!there) continue;
        else if (one.kind === "remove") await rm(file);
        else if (one.kind === "touch") await utimes(file, ++time, time);
        else if (one.kind === "rename") await rename(file, join(folder, one.to));
        else if (one.kind === "copy" && one.to !== one.name) await copyFile(file, join(folder, one.to));
      }
      const { index } = await update();
      expectAlike(index, await fresh());
      // The saved file has the same content.
      expect(await update()).toMatchObject({ index: { names: index.names, ids: index.ids }, embedded: 0 });
    }),
    { numRuns: 15 },
  );
});

test("rebuilds a damaged file with a message; never overwrites a file of another kind", async () => {
  for (const [i, one] of ["a.png", "b.png"].entries()) await paint(one, i + 1);
  const { index } = await update();
  const whole = await readFile(path);
  await fc.assert(
    fc.asyncProperty(fc.nat(whole.length - 1), fc.boolean(), async (at, isCut) => {
      const damaged = Buffer.from(whole);
      damaged[at] = (damaged[at] as number) ^ 0x5a;
      await writeFile(path, isCut ? whole.subarray(0, at) : damaged);
      const again = await update({ ownsFile: true });
      expect(again.messages).toEqual([expect.stringMatching(/Rebuilding the index\.$/)]);
      expect(again.messages[0]).toContain(path);
      expectAlike(again.index, index);
      expect(await update()).toMatchObject({ embedded: 0, messages: [] });
    }),
    { numRuns: 15 },
  );
  const letter = Buffer.from("Dear reader, this is no index.");
  await writeFile(path, letter);
  await expect(update()).rejects.toThrow(`${path} is not an image index, so it is not overwritten`);
  await expect(update({ rebuild: true })).rejects.toThrow(/is not an image index/);
  expect(await readFile(path)).toEqual(letter);
});

test("an aborted update keeps its work; two concurrent updates both succeed", async () => {
  for (let i = 0; i < 18; i++) await paint(`${String(i).padStart(2, "0")}.png`, i / 4);
  const stop = new AbortController();
  const aborted = update({ signal: stop.signal, onProgress: (done) => done === 8 && stop.abort(new Error("stopped")) });
  await expect(aborted).rejects.toThrow("stopped");
  const [one, other] = await Promise.all([update(), update()]);
  expect(one?.embedded).toBe(10);
  expectAlike(one?.index as ImageIndex, await fresh());
  expectAlike(other?.index as ImageIndex, one?.index as ImageIndex);
  expect(await update()).toMatchObject({ embedded: 0, messages: [] });
  // Temporary files of killed processes are removed once they are old.
  const [young, old] = ["young", "old"].map((id) => `${path}.${id}.partial`) as [string, string];
  for (const file of [young, old]) await writeFile(file, "half");
  await utimes(old, time, time);
  await paint("new.png", 5);
  await update();
  expect(
    (await readdir(root)).filter((file) => file.startsWith(`index-${count}.`) || file.endsWith(".partial")),
  ).toEqual([`${path}.young.partial`.slice(root.length + 1)]);
  await rm(young);
});

test("rebuilds an index that was built with other weights", async () => {
  await paint("a.png", 1);
  await paint("b.png", 2);
  const { index } = await update();
  await writeQFormer(join(root, "other.safetensors"), (weight, values) =>
    weight === "vision_proj.bias" ? values.map((value) => value + 0.01) : undefined,
  );
  const other = tinyBlip2(root, "other", ({ weights }) => ({
    weights: { ...weights, qformer: "../other.safetensors" },
  }));
  const otherModel = new Blip2RetrievalModel(await openBlip2Folder(other), { features: join(root, "features") });
  const rebuilt = await update({}, path, otherModel);
  expect(rebuilt).toMatchObject({ embedded: 2, messages: [expect.stringMatching(/other weights.*Rebuilding it\.$/)] });
  expect(rebuilt.index.ids).toEqual(index.ids);
  expect(rebuilt.index.vectors).not.toEqual(index.vectors);
  // A copy of the same weights.
  const copied = tinyBlip2(root, "copied", ({ weights }) => ({ weights: { ...weights, qformer: "copy.safetensors" } }));
  await copyFile(join(root, "other.safetensors"), join(copied, "copy.safetensors"));
  const copiedModel = new Blip2RetrievalModel(await openBlip2Folder(copied), { features: join(root, "features") });
  expect(await update({}, path, copiedModel)).toMatchObject({ embedded: 0, messages: [] });
  expect(await update({ rebuild: true }, path, copiedModel)).toMatchObject({ embedded: 2 });
  await otherModel.close();
  await copiedModel.close();
});
