/** Prompts and target texts of a recipe. */
import { readFile } from "node:fs/promises";
import type { Dataset } from "../../data/dataset.ts";
import type { Random } from "../../tensor/random.ts";
import type { Tokenizer } from "../../tokenizers/load.ts";
import { cleanCaption, parsePrompt, tokenizePrompt } from "../../tokenizers/prompts.ts";
import type { MiniGPT4Recipe, RecipeBase } from "../recipe.ts";
import type { Piece } from "./sequences.ts";
import type { StageSample } from "./stage.ts";

/** A prompt with `<ImageHere>` where the image goes. */
export interface TrainingPrompt {
  readonly text: string;
  /** The same as tokens, starting with the beginning-of-sequence token of the tokenizer, if any. */
  readonly pieces: readonly Piece[];
  /** End of every answer, which is a target too: a newline in the first stage, "###" in the second. */
  readonly endSym: string;
  readonly ratio: number;
}

type ListedPrompt = NonNullable<MiniGPT4Recipe["model"]["prompts"]>[number];

/** Just the image, as in the first stage. */
const imageOnly: ListedPrompt = { text: "<ImageHere>", sample_ratio: 1 };

/** The recipe's prompts, or just the image. @throws Error naming the prompt file if it has none */
export async function readPrompts({ model }: MiniGPT4Recipe, tokenizer: Tokenizer): Promise<TrainingPrompt[]> {
  const fromFile = model.prompt_path ? await readPromptFile(model.prompt_path) : [];
  const listed = [...(model.prompts ?? []), ...fromFile];
  return (listed.length > 0 ? listed : [imageOnly]).map(
    ({ text, end_sym: endSym = model.end_sym, sample_ratio: ratio }) => {
      const wrapped = model.prompt_template.replace("{}", () => text);
      return { text: wrapped, pieces: promptPieces(wrapped, tokenizer), endSym, ratio };
    },
  );
}

async function readPromptFile(path: string): Promise<ListedPrompt[]> {
  const content = await readFile(path, "utf8").catch((cause: Error) => {
    throw new Error(`model.prompt_path: ${path} cannot be read: ${cause.message}`, { cause });
  });
  const lines = content.split(/\r?\n/).filter((line) => line.includes("<ImageHere>"));
  if (lines.length === 0) throw new Error(`model.prompt_path: no line of ${path} contains <ImageHere>`);
  return lines.map((text) => ({ text, sample_ratio: 1 }));
}

/** Tokenizes a prompt around its `<ImageHere>`. */
function promptPieces(prompt: string, tokenizer: Tokenizer): Piece[] {
  return tokenizePrompt(parsePrompt(prompt), tokenizer).map((piece) => ("ids" in piece ? piece : "image"));
}

/** Draws a prompt in proportion to the ratios. */
export function choosePrompt(prompts: readonly TrainingPrompt[], random: Random): TrainingPrompt {
  let rest = random.uniform() * prompts.reduce((sum, { ratio }) => sum + ratio, 0);
  for (const prompt of prompts) {
    rest -= prompt.ratio;
    if (rest < 0) return prompt;
  }
  return prompts[0] as TrainingPrompt;
}

/** The target tokens: the text and the end symbol, truncated to `maxLength`. */
export function answerTokens(text: string, endSym: string, maxLength: number, tokenizer: Tokenizer): number[] {
  return tokenizer.encode(text + endSym).slice(0, maxLength);
}

/** The target texts of a sample; empty ones are left out. */
export type TextsOf = (sample: StageSample) => readonly string[];

/** Target texts as the recipe cleans and fills them in for each dataset. @param opened its datasets, in its order */
export function targetTexts(
  { datasets }: Pick<RecipeBase, "datasets">,
  opened: readonly Pick<Dataset, "format">[],
): TextsOf {
  const settings = Object.values(datasets).map(({ text_processor: processor, answer }, i) => ({
    answer,
    clean: (processor ?? (opened[i]?.format === "cc_sbu_align" ? "none" : "blip_caption")) === "blip_caption",
  }));
  return ({ pair, dataset }) => {
    const setting = settings[dataset];
    if (!setting) throw new Error(`${pair.name} belongs to dataset ${dataset}, which the recipe does not have`);
    return pair.texts
      .map((text) => (setting.clean ? cleanCaption(text) : text))
      .filter((text) => text.trim() !== "")
      .map((text) => fill(setting.answer, text));
  };
}

/** Replaces `{text}` by the text and `{a text}` by the text with its article. */
function fill(answer: string, text: string): string {
  const withArticle = `${/^[aeiou]/.test(text) ? "an" : "a"} ${text}`;
  return answer.replace("{a text}", () => withArticle).replace("{text}", () => text);
}
