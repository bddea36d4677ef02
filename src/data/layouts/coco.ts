/** COCO captions: {"images": [{"id", "file_name"}], "annotations": [{"image_id", "caption"}]} (https://cocodataset.org/#format-data). */
import { access } from "node:fs/promises";
import { dirname, extname, join } from "node:path";
import { z } from "zod";
import type { PartContents } from "../dataset.ts";
import { readJson } from "./json-file.ts";
import { type Layout, listedBy } from "./layout.ts";
import { Listing } from "./listing.ts";

const id = z.union([z.number(), z.string()]);
const schema = z.object({
  images: z.array(z.object({ id, file_name: z.string().min(1) })),
  annotations: z.array(z.object({ image_id: id, caption: z.string() })),
});

/** Where COCO's own archives put the pictures, beside the annotations or beside their folder. */
const pictureFolders = ["", "train2017", "val2017", "train2014", "val2014", "images"];
/** A few pictures may be missing; a folder is told by the first of these that it holds. */
const probes = 8;

export const coco: Layout = {
  looksFor: "a .json file of COCO captions, such as annotations/captions_val2017.json",
  options: ["images"],
  recognises: ({ path, kind }) => kind === "file" && extname(path).toLowerCase() === ".json",
  open: async ({ path }, { images }) => listedBy(path, () => read(path, images)),
};

async function read(file: string, givenFolder: string | undefined): Promise<PartContents> {
  const { images, annotations } = await readJson(file, schema);
  const names = new Map(images.map((image) => [image.id, image.file_name]));
  const folder = givenFolder ?? (await findPictures(file, [...names.values()].slice(0, probes)));
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

/** The first folder that holds one of the pictures. @throws Error naming where was looked */
async function findPictures(file: string, pictures: readonly string[]): Promise<string> {
  const beside = dirname(file);
  const folders = [beside, dirname(beside)].flatMap((parent) => pictureFolders.map((name) => join(parent, name)));
  for (const picture of pictures) {
    for (const folder of folders) {
      const isThere = await access(join(folder, picture)).then(
        () => true,
        () => false,
      );
      if (isThere) return folder;
    }
  }
  throw new Error(
    `${file}: found no folder with its pictures (${pictures[0] ?? "it lists none"}). Looked in ${folders.join(", ")}; ` +
      "name the folder with the option images",
  );
}
