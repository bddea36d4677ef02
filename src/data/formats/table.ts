/** Tables of image names and captions: CSV, TSV, JSON lines, and Flickr8k. */
import { readFile, stat } from "node:fs/promises";
import { dirname, extname, join } from "node:path";
import { parse } from "csv-parse/sync";
import type { PartContents } from "../dataset.ts";
import { CaptionList, type DatasetFormat, jsonFields, singlePart } from "./format.ts";

export const csv: DatasetFormat = {
  summary: 'a .csv, .tsv or .txt file with the columns "image" and "caption" (or "text", "name")',
  options: [],
  matches: ({ path, kind }) => kind === "file" && [".csv", ".tsv", ".txt"].includes(extname(path).toLowerCase()),
  open: async ({ path }) => singlePart(path, async () => readCsv(path, await findImageFolder(path))),
};

export const jsonl: DatasetFormat = {
  summary: 'a .jsonl file of lines {"image": "...", "caption": "..."} (or "text", or a list "captions" or "texts")',
  options: [],
  matches: ({ path, kind }) => kind === "file" && extname(path).toLowerCase() === ".jsonl",
  open: async ({ path }) => singlePart(path, async () => readJsonLines(path, await findImageFolder(path))),
};

/** `Images/` next to the file if it exists, else the file's folder. */
async function findImageFolder(file: string): Promise<string> {
  const images = join(dirname(file), "Images");
  const isFolder = await stat(images).then(
    (entry) => entry.isDirectory(),
    () => false,
  );
  return isFolder ? images : dirname(file);
}

/**
 * Reads a CSV file (TSV by its extension) with the columns `image` and `caption` (or `text`, `name`).
 *
 * @param images folder that image names are relative to
 * @throws Error naming the file, and the record that lacks a column
 */
async function readCsv(file: string, images: string): Promise<PartContents> {
  const list = new CaptionList({ file, root: dirname(file), images });
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
    throw new Error(`${file} is not a valid ${delimiter === "," ? "CSV" : "TSV"} file: ${(cause as Error).message}`, {
      cause,
    });
  }
  records.forEach((record, i) => {
    const { image } = record;
    const text = record.caption ?? record.text ?? record.name;
    if (image === undefined || text === undefined) {
      throw new Error(
        `${file}, record ${i + 1}: expected the columns "image" and "caption" (or "text", "name"), found ${JSON.stringify(record)}`,
      );
    }
    list.add(`record ${i + 1}`, image, [text]);
  });
  return list.contents();
}

async function readJsonLines(file: string, images: string): Promise<PartContents> {
  const list = new CaptionList({ file, root: dirname(file), images });
  const lines = (await readText(file)).split("\n");
  lines.forEach((line, i) => {
    if (line.trim() === "") return;
    const position = `line ${i + 1}`;
    try {
      const { image, caption, text, captions, texts } = jsonFields(JSON.parse(line));
      list.add(position, image, [caption, text, captions, texts].flat());
    } catch (error) {
      list.skip(position, `is not valid JSON: ${(error as Error).message}`);
    }
  });
  return list.contents();
}

function readText(file: string): Promise<string> {
  return readFile(file, "utf8").catch((cause: Error) => {
    throw new Error(`${file} cannot be read: ${cause.message}`, { cause });
  });
}

/** Flickr8k: a folder with `Images/` and `captions.txt`, a CSV file with the columns `image` and `caption`. */
export const flickr8k: DatasetFormat = {
  summary: "a folder with Images/ and captions.txt",
  options: [],
  matches: ({ names }) => names.includes("captions.txt"),
  open: async ({ path }) =>
    singlePart(join(path, "captions.txt"), () => readCsv(join(path, "captions.txt"), join(path, "Images"))),
};
