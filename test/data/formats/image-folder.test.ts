import { mkdir, symlink, writeFile } from "node:fs/promises";
import { dirname, join, relative } from "node:path";
import { expect, test } from "vitest";
import { openCaptioned, openDataset } from "../../../src/data/formats/open.ts";
import { minigpt4 } from "../../helpers/cli-command.ts";
import { temporaryFolder } from "../../helpers/tiny-model.ts";

const root = temporaryFolder();
let count = 0;

/** A new folder with these files, which are empty. */
async function folderWith(...names: readonly string[]): Promise<string> {
  const folder = join(root, `set-${count++}`);
  await mkdir(folder);
  for (const name of names) {
    await mkdir(dirname(join(folder, name)), { recursive: true });
    await writeFile(join(folder, name), "");
  }
  return folder;
}

async function imagesIn(folder: string): Promise<string[]> {
  const { format, parts } = await openDataset(folder);
  expect(format).toBe("images");
  const [contents, ...more] = await Promise.all(parts.map((part) => part.read()));
  expect(more).toEqual([]);
  return (contents?.pairs ?? []).map(({ name, image, texts }) => {
    expect(image).toEqual({ path: name });
    expect(texts).toEqual([]);
    return relative(folder, name).replaceAll("\\", "/");
  });
}

test("lists images of the folder and its subfolders, sorted by name", async () => {
  const folder = await folderWith(
    "b.jpg",
    "a.PNG",
    "holiday/2024/x.webp",
    "holiday/notes.txt",
    "notes.md",
    "drawing.svg",
    ".thumbnails/b.jpg",
    "._b.jpg",
    "no-ending",
  );
  expect(await imagesIn(folder)).toEqual(["a.PNG", "b.jpg", "drawing.svg", "holiday/2024/x.webp"]);
});

test("finds images that are only in subfolders", async () => {
  expect(await imagesIn(await folderWith("cats/1.jpg", "dogs/1.jpg"))).toEqual(["cats/1.jpg", "dogs/1.jpg"]);
});

test.skipIf(process.platform === "win32")("links to images are followed, circles of folders are not", async () => {
  const folder = await folderWith("a.jpg", "below/b.jpg");
  await symlink(join(folder, "a.jpg"), join(folder, "c.jpg"));
  await symlink(folder, join(folder, "below", "again"));
  expect(await imagesIn(folder)).toEqual(["a.jpg", "below/b.jpg", "c.jpg"]);
});

test("other formats take precedence, and a folder without images has no format", async () => {
  const captions = await folderWith("captions.txt", "Images/1.jpg", "2.jpg");
  expect((await openDataset(captions)).format).toBe("flickr8k");
  expect((await openDataset(captions, { format: "images" })).format).toBe("images");
  const none = await folderWith("notes.md", "below/more.md");
  await expect(openDataset(none)).rejects.toThrow("is not in a supported format");
  const named = await openDataset(none, { format: "images" });
  await expect(named.parts[0]?.read()).rejects.toThrow(`${none} contains no images (.jpg`);
});

test("openCaptioned refuses a folder without captions and lists the formats that have them", async () => {
  const folder = await folderWith("a.jpg");
  await expect(openCaptioned(folder)).rejects.toThrow(`${folder} is a folder of images without captions`);
  await expect(openCaptioned(folder, { format: "images" })).rejects.toThrow("filter_cap.json");
  expect((await openCaptioned(await folderWith("captions.txt"))).format).toBe("flickr8k");
  const { code, stderr } = await minigpt4(["evaluate", "retrieval", folder]);
  expect(code).toBe(1);
  expect(stderr).toContain("is a folder of images without captions");
});
