/** Pictures with words, from the layouts that public data sets come in. */
import { readFile, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { parse } from "csv-parse/sync";
import { z } from "zod";

/** One picture and what is said of it. */
export interface ImageTextPair {
  /** Path of the picture. */
  readonly picture: string;
  readonly texts: readonly string[];
}

const rowSchema = z
  .object({
    image: z.string().min(1),
    caption: z.string().optional(),
    text: z.string().optional(),
    name: z.string().optional(),
  })
  .transform(({ image, caption, text, name }) => ({ image, text: caption ?? text ?? name }));

/**
 * Pairs of a folder as Flickr8k has it: `Images/` and `captions.txt`, a CSV file with the columns `image` and `caption`.
 * A path to a CSV file is also taken (columns `image` and `caption`, `text` or `name`); its pictures lie in `Images/` beside it.
 *
 * @returns pictures in the order of their first mention
 * @throws Error naming the file, and the line where one is wrong
 */
export async function readPairs(path: string): Promise<ImageTextPair[]> {
  const isFolder = await stat(path).then(
    (entry) => entry.isDirectory(),
    () => {
      throw new Error(`${path} is not there; expected a folder with Images/ and captions.txt, or a CSV file`);
    },
  );
  const file = isFolder ? join(path, "captions.txt") : path;
  const content = await readFile(file, "utf8").catch((cause: Error) => {
    throw new Error(`${file} cannot be read: ${cause.message}`, { cause });
  });
  const texts = new Map<string, string[]>();
  for (const { image, text } of rows(content, file)) {
    const known = texts.get(image);
    if (known) known.push(text);
    else texts.set(image, [text]);
  }
  const images = join(dirname(file), "Images");
  return [...texts].map(([image, said]) => ({ picture: join(images, image), texts: said }));
}

function rows(content: string, file: string): { image: string; text: string }[] {
  let records: unknown[];
  try {
    records = parse(content, { columns: true, skip_empty_lines: true, relax_quotes: true, bom: true, trim: true });
  } catch (cause) {
    throw new Error(`${file} is no CSV file: ${(cause as Error).message}`, { cause });
  }
  return records.map((record, i) => {
    const { data } = rowSchema.safeParse(record);
    if (!data?.text) {
      throw new Error(
        `${file}, record ${i + 1}: expected the columns "image" and "caption" (or "text", "name"), found ${JSON.stringify(record)}`,
      );
    }
    return { image: data.image, text: data.text };
  });
}
