/** Tables that name images and say what they show: CSV, TSV, and JSON lines. */
import { readFile, stat } from "node:fs/promises";
import { dirname, extname, join } from "node:path";
import { parse } from "csv-parse/sync";
import type { PartContents } from "../dataset.ts";
import { fieldsOf, type Layout, Listing, listedBy } from "./format.ts";

export const csv: Layout = {
  looksFor: 'a .csv, .tsv or .txt file with the columns "image" and "caption" (or "text", "name")',
  options: [],
  recognises: ({ path, kind }) => kind === "file" && [".csv", ".tsv", ".txt"].includes(extname(path).toLowerCase()),
  open: async ({ path }) => listedBy(path, async () => readCsv(path, await imagesBeside(path))),
};

export const jsonl: Layout = {
  looksFor: 'a .jsonl file of lines {"image": "...", "caption": "..."} (or "text", or a list "captions" or "texts")',
  options: [],
  recognises: ({ path, kind }) => kind === "file" && extname(path).toLowerCase() === ".jsonl",
  open: async ({ path }) => listedBy(path, async () => readJsonLines(path, await imagesBeside(path))),
};

/** `Images/` beside the file if it is there, or else the file's folder. */
async function imagesBeside(file: string): Promise<string> {
  const images = join(dirname(file), "Images");
  const isFolder = await stat(images).then(
    (entry) => entry.isDirectory(),
    () => false,
  );
  return isFolder ? images : dirname(file);
}

/**
 * Pairs of a CSV file (TSV by its ending) with the columns `image` and `caption` (or `text`, `name`).
 *
 * @param images folder in which the images' names begin
 * @throws Error naming the file, and the record where one has not the columns
 */
async function readCsv(file: string, images: string): Promise<PartContents> {
  const listing = new Listing({ file, root: dirname(file), images });
  const delimiter = extname(file).toLowerCase() === ".tsv" ? "\t" : ",";
  const content = await readText(file);
  let records: Record<string, string>[];
  try {
    records = parse(content, {
      columns: true,
      delimiter,
      skip_empty_lines: true,
      relax_quotes: true,
      bom: true,
      trim: true,
    });
  } catch (cause) {
    throw new Error(`${file} is no ${delimiter === "," ? "CSV" : "TSV"} file: ${(cause as Error).message}`, { cause });
  }
  records.forEach((record, i) => {
    const { image } = record;
    const text = record.caption ?? record.text ?? record.name;
    if (image === undefined || text === undefined) {
      throw new Error(
        `${file}, record ${i + 1}: expected the columns "image" and "caption" (or "text", "name"), found ${JSON.stringify(record)}`,
      );
    }
    listing.add(`record ${i + 1}`, image, [text]);
  });
  return listing.contents();
}

async function readJsonLines(file: string, images: string): Promise<PartContents> {
  const listing = new Listing({ file, root: dirname(file), images });
  const lines = (await readText(file)).split("\n");
  lines.forEach((line, i) => {
    if (line.trim() === "") return;
    const where = `line ${i + 1}`;
    try {
      const { image, caption, text, captions, texts } = fieldsOf(JSON.parse(line));
      listing.add(where, image, [caption, text, captions, texts].flat());
    } catch (error) {
      listing.refuse(where, `is no JSON: ${(error as Error).message}`);
    }
  });
  return listing.contents();
}

function readText(file: string): Promise<string> {
  return readFile(file, "utf8").catch((cause: Error) => {
    throw new Error(`${file} cannot be read: ${cause.message}`, { cause });
  });
}

// Flickr8k: a folder with `Images/` and `captions.txt`, a CSV file with the columns `image` and `caption`.

export const flickr8k: Layout = {
  looksFor: "a folder with Images/ and captions.txt",
  options: [],
  recognises: ({ names }) => names.includes("captions.txt"),
  open: async ({ path }) => listedBy(join(path, "captions.txt"), () => readFlickr8k(path)),
};

/** Pairs of the folder. @throws Error naming `captions.txt`, and the record where one is wrong */
function readFlickr8k(folder: string): Promise<PartContents> {
  return readCsv(join(folder, "captions.txt"), join(folder, "Images"));
}
