/** Datasets whose captions are in one JSON file: MiniGPT-4's second stage (`cc_sbu_align`) and COCO captions. */

import { access, readdir } from "node:fs/promises";
import { dirname, extname, join, parse } from "node:path";
import { z } from "zod";
import { readJsonFile } from "../../files/json-file.ts";
import type { PartContents } from "../dataset.ts";
import { CaptionList, type DatasetFormat, singlePart } from "./format.ts";

const captionsFile = "filter_cap.json";
const extensions = [".jpg", ".jpeg", ".png", ".webp"];

const imageId = z.union([z.string(), z.number()]);
const annotationsSchema = z.array(z.object({ image_id: imageId, caption: z.string() }));
const ccSbuAlignSchema = z.object({ annotations: annotationsSchema });

/**
 * The 3,500 images of MiniGPT-4's second stage, as its authors publish them: a folder with `filter_cap.json`,
 * {"annotations": [{"image_id": "2", "caption": "..."}]}, and `image/2.jpg`.
 */
export const ccSbuAlign: DatasetFormat = {
  summary: `a folder with ${captionsFile} and image/`,
  options: [],
  matches: ({ names }) => names.includes(captionsFile),
  open: async ({ path }) => singlePart(join(path, captionsFile), () => readCcSbuAlign(path)),
};

async function readCcSbuAlign(folder: string): Promise<PartContents> {
  const file = join(folder, captionsFile);
  const imageFolder = join(folder, "image");
  const { annotations } = await readJsonFile(file, ccSbuAlignSchema);
  const names = await readdir(imageFolder).catch((cause: Error) => {
    throw new Error(`${imageFolder} cannot be read: ${cause.message}`, { cause });
  });
  const files = names.filter((name) => extensions.includes(parse(name).ext.toLowerCase())).sort();
  // Annotations name images without their extension.
  const fileNames = new Map(files.toReversed().map((name) => [parse(name).name, name]));
  const list = new CaptionList({ file, root: folder, images: imageFolder });
  annotations.forEach(({ image_id: id, caption }, i) => {
    const name = fileNames.get(String(id));
    if (name === undefined) list.skip(`annotation ${i + 1}`, `${join(imageFolder, `${id}.jpg`)} does not exist`);
    else list.add(`annotation ${i + 1}`, name, [caption]);
  });
  return list.contents();
}

const cocoSchema = z.object({
  images: z.array(z.object({ id: imageId, file_name: z.string().min(1) })),
  annotations: annotationsSchema,
});

/** Folders of COCO's own archives, next to the annotation file or next to its folder. */
const cocoImageFolders = ["", "train2017", "val2017", "train2014", "val2014", "images"];
/** Number of images to look for when searching for the image folder; some may be missing. */
const probes = 8;

/** COCO captions: {"images": [{"id", "file_name"}], "annotations": [{"image_id", "caption"}]} (https://cocodataset.org/#format-data). */
export const coco: DatasetFormat = {
  summary: "a .json file of COCO captions, such as annotations/captions_val2017.json",
  options: ["images"],
  matches: ({ path, kind }) => kind === "file" && extname(path).toLowerCase() === ".json",
  open: async ({ path }, { images }) => singlePart(path, () => readCoco(path, images)),
};

async function readCoco(file: string, imageFolder: string | undefined): Promise<PartContents> {
  const { images, annotations } = await readJsonFile(file, cocoSchema);
  const names = new Map(images.map((image) => [image.id, image.file_name]));
  const folder = imageFolder ?? (await findImages(file, [...names.values()].slice(0, probes)));
  const list = new CaptionList({ file, root: folder, images: folder });
  annotations.forEach(({ image_id: image, caption }, i) => {
    const name = names.get(image);
    if (name === undefined) list.skip(`annotation ${i + 1}`, `image ${image} is not in the list of images`);
    else list.add(`annotation ${i + 1}`, name, [caption]);
  });
  const captioned = new Set(annotations.map((annotation) => annotation.image_id));
  for (const image of images) if (!captioned.has(image.id)) list.skip(`image ${image.id}`, "has no caption");
  return list.contents();
}

/** The first folder that contains one of the images. @throws Error listing the folders that were searched */
async function findImages(file: string, images: readonly string[]): Promise<string> {
  const parent = dirname(file);
  const folders = [parent, dirname(parent)].flatMap((folder) => cocoImageFolders.map((name) => join(folder, name)));
  for (const image of images) {
    for (const folder of folders) {
      const exists = await access(join(folder, image)).then(
        () => true,
        () => false,
      );
      if (exists) return folder;
    }
  }
  throw new Error(
    `${file}: its images (${images[0] ?? "it lists none"}) were not found in ${folders.join(", ")}; ` +
      "set the option images to their folder",
  );
}
