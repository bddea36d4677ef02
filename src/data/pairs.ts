/** Pictures with words, from a folder as Flickr8k has it or from one table. */
import { stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { readFlickr8k } from "./layouts/flickr8k.ts";
import { readCsv } from "./layouts/table.ts";

/** One picture and what is said of it. */
export interface ImageTextPair {
  /** Path of the picture. */
  readonly picture: string;
  readonly texts: readonly string[];
}

/**
 * Pairs of a folder as Flickr8k has it: `Images/` and `captions.txt`, a CSV file with the columns `image` and `caption`.
 * A path to a CSV file is also taken (columns `image` and `caption`, `text` or `name`); its pictures lie in `Images/` beside it.
 *
 * @returns pictures in the order of their first mention
 * @throws Error naming the file, and the record where one is wrong
 */
export async function readPairs(path: string): Promise<ImageTextPair[]> {
  const isFolder = await stat(path).then(
    (entry) => entry.isDirectory(),
    () => {
      throw new Error(`${path} is not there; expected a folder with Images/ and captions.txt, or a CSV file`);
    },
  );
  const { pairs, problems } = await (isFolder ? readFlickr8k(path) : readCsv(path, join(dirname(path), "Images")));
  const [problem] = problems;
  if (problem) throw new Error(`${problem.name}: ${problem.reason}`);
  return pairs.map(({ picture, texts }) => ({ picture: picture.path, texts }));
}
