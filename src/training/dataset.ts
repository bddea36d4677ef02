/** The data sets of a recipe as pictures with answers, the held-out ones left out. */
import { type ImageTextPair, readPairs } from "../data/pairs.ts";
import { cleanCaption } from "../text/captions.ts";
import type { Tokenizer } from "../text/tokenizer.ts";
import type { Recipe } from "./recipe.ts";

/** One picture to learn from. */
export interface Example {
  readonly pair: ImageTextPair;
  /** Token ids of each text, without an end symbol. */
  readonly captions: readonly (readonly number[])[];
}

/** The examples of each data set of the recipe. @throws Error naming the data set if nothing is left to train on */
export async function readExamples({ datasets }: Recipe, tokenizer: Tokenizer): Promise<Example[][]> {
  return Promise.all(
    Object.entries(datasets).map(async ([name, { path, hold_out: heldOut, answer }]) => {
      const { train } = splitPairs(await readPairs(path), heldOut);
      if (train.length === 0) throw new Error(`Data set ${name} (${path}) has no picture left to train on`);
      return train.map((pair) => {
        const texts = pair.texts.map((text) => fill(answer, cleanCaption(text))).filter((text) => text !== "");
        return { pair, captions: texts.map((text) => tokenizer.encode(` ${text}`)) };
      });
    }),
  );
}

/** The last `heldOut` pictures by name are for evaluation, the others for training. */
export function splitPairs(
  pairs: readonly ImageTextPair[],
  heldOut: number,
): { train: ImageTextPair[]; heldOut: ImageTextPair[] } {
  const sorted = [...pairs].sort((a, b) => (a.picture < b.picture ? -1 : 1));
  const cut = Math.max(0, sorted.length - heldOut);
  return { train: sorted.slice(0, cut), heldOut: sorted.slice(cut) };
}

/** `{text}` stands for the text, `{a text}` for it with its article. */
function fill(answer: string, text: string): string {
  if (text === "") return "";
  return answer.replace("{a text}", `${/^[aeiou]/.test(text) ? "an" : "a"} ${text}`).replace("{text}", text);
}
