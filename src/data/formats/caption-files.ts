/**
 * The 3500 images of MiniGPT-4's second stage, as its authors publish them: a folder with `filter_cap.json`,
 * {"annotations": [{"image_id": "2", "caption": "..."}]}, and `image/2.jpg`.
 */

import { access, readdir } from "node:fs/promises";
import { dirname, extname, join, parse } from "node:path";
import { z } from "zod";
import { inFile, RandomAccessFile } from "../../files/file.ts";
import { parseJson } from "../../files/json.ts";
import type { PartContents } from "../dataset.ts";
import { type Layout, Listing, listedBy } from "./format.ts";

// A JSON file of captions, read and checked.

/** @throws Error naming the file, and the first place in it that is not as the schema says */
function readJson<T>(path: string, schema: z.ZodType<T>): Promise<T> {
  return inFile(path, async () => {
    const file = await RandomAccessFile.open(path);
    const bytes = await file.read(0, file.size).finally(() => file.close());
    const { data, error } = schema.safeParse(parseJson(bytes));
    if (data !== undefined) return data;
    const issue = error?.issues[0];
    throw new Error(`${issue?.path.join(".") || "the file"}: ${issue?.message}`);
  });
}

const captionsFile = "filter_cap.json";
const endings = [".jpg", ".jpeg", ".png", ".webp"];

const schema = z.object({
  annotations: z.array(z.object({ image_id: z.union([z.string(), z.number()]), caption: z.string() })),
});

export const ccSbuAlign: Layout = {
  looksFor: `a folder with ${captionsFile} and image/`,
  options: [],
  recognises: ({ names }) => names.includes(captionsFile),
  open: async ({ path }) => listedBy(join(path, captionsFile), () => read(path)),
};

async function read(folder: string): Promise<PartContents> {
  const file = join(folder, captionsFile);
  const imageFolder = join(folder, "image");
  const { annotations } = await readJson(file, schema);
  const names = await readdir(imageFolder).catch((cause: Error) => {
    throw new Error(`${imageFolder} cannot be read: ${cause.message}`, { cause });
  });
  const files = names.filter((name) => endings.includes(parse(name).ext.toLowerCase())).sort();
  // The annotations leave the ending out.
  const nameOf = new Map(files.toReversed().map((name) => [parse(name).name, name]));
  const listing = new Listing({ file, root: folder, images: imageFolder });
  annotations.forEach(({ image_id: id, caption }, i) => {
    const name = nameOf.get(String(id));
    if (name === undefined) listing.refuse(`annotation ${i + 1}`, `${join(imageFolder, `${id}.jpg`)} is not there`);
    else listing.add(`annotation ${i + 1}`, name, [caption]);
  });
  return listing.contents();
}

// COCO captions: {"images": [{"id", "file_name"}], "annotations": [{"image_id", "caption"}]} (https://cocodataset.org/#format-data).

const id = z.union([z.number(), z.string()]);
const schemaCoco = z.object({
  images: z.array(z.object({ id, file_name: z.string().min(1) })),
  annotations: z.array(z.object({ image_id: id, caption: z.string() })),
});

/** Where COCO's own archives put the images, beside the annotations or beside their folder. */
const imageFolders = ["", "train2017", "val2017", "train2014", "val2014", "images"];
/** A few images may be missing; a folder is told by the first of these that it holds. */
const probes = 8;

export const coco: Layout = {
  looksFor: "a .json file of COCO captions, such as annotations/captions_val2017.json",
  options: ["images"],
  recognises: ({ path, kind }) => kind === "file" && extname(path).toLowerCase() === ".json",
  open: async ({ path }, { images }) => listedBy(path, () => readCoco(path, images)),
};

async function readCoco(file: string, givenFolder: string | undefined): Promise<PartContents> {
  const { images, annotations } = await readJson(file, schemaCoco);
  const names = new Map(images.map((image) => [image.id, image.file_name]));
  const folder = givenFolder ?? (await findImages(file, [...names.values()].slice(0, probes)));
  const listing = new Listing({ file, root: folder, images: folder });
  annotations.forEach(({ image_id: image, caption }, i) => {
    const name = names.get(image);
    if (name === undefined) listing.refuse(`annotation ${i + 1}`, `its image ${image} is not in the list of images`);
    else listing.add(`annotation ${i + 1}`, name, [caption]);
  });
  const described = new Set(annotations.map((annotation) => annotation.image_id));
  for (const image of images) if (!described.has(image.id)) listing.refuse(`image ${image.id}`, "has no caption");
  return listing.contents();
}

/** The first folder that holds one of the images. @throws Error naming where was looked */
async function findImages(file: string, images: readonly string[]): Promise<string> {
  const beside = dirname(file);
  const folders = [beside, dirname(beside)].flatMap((parent) => imageFolders.map((name) => join(parent, name)));
  for (const image of images) {
    for (const folder of folders) {
      const isThere = await access(join(folder, image)).then(
        () => true,
        () => false,
      );
      if (isThere) return folder;
    }
  }
  throw new Error(
    `${file}: found no folder with its images (${images[0] ?? "it lists none"}). Looked in ${folders.join(", ")}; ` +
      "name the folder with the option images",
  );
}
