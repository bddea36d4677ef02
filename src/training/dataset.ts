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

/** One data set of a recipe. */
export interface ExampleSet {
  readonly train: readonly Example[];
  /** Watched during the run. */
  readonly validation: readonly Example[];
}

/** The examples of each data set of the recipe. @throws Error naming the data set if nothing is left to train on */
export async function readExamples({ datasets }: Recipe, tokenizer: Tokenizer): Promise<ExampleSet[]> {
  return Promise.all(
    Object.entries(datasets).map(async ([name, { path, hold_out: heldOut, validate, answer }]) => {
      const usable = splitPairs(await readPairs(path), heldOut).train;
      const { train, heldOut: validation } = splitPairs(usable, validate);
      if (train.length === 0) throw new Error(`Data set ${name} (${path}) has no picture left to train on`);
      const example = (pair: ImageTextPair): Example => {
        const texts = pair.texts.map((text) => fill(answer, cleanCaption(text))).filter((text) => text !== "");
        return { pair, captions: texts.map((text) => tokenizer.encode(` ${text}`)) };
      };
      return { train: train.map(example), validation: validation.map(example) };
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
