/** What is learned of a picture's texts. */
import type { Dataset } from "../../data/dataset.ts";
import { cleanCaption } from "../../text/captions.ts";
import type { RecipeBase } from "../recipe-sections.ts";
import type { StageSample } from "./stage.ts";

/** The answers of a sample, in words; empty ones are left out. */
export type TextsOf = (sample: StageSample) => readonly string[];

/** Cleans and fills in texts as each data set of the recipe says. @param datasets the recipe's, in its order */
export function textsOfRecipe(
  { datasets }: Pick<RecipeBase, "datasets">,
  opened: readonly Pick<Dataset, "layout">[],
): TextsOf {
  const settings = Object.values(datasets).map(({ text_processor: processor, answer }, i) => ({
    answer,
    clean: (processor ?? (opened[i]?.layout === "cc_sbu_align" ? "none" : "blip_caption")) === "blip_caption",
  }));
  return ({ pair, dataset }) => {
    const setting = settings[dataset];
    if (!setting) throw new Error(`${pair.name} is of data set ${dataset}, which the recipe does not have`);
    return pair.texts
      .map((text) => (setting.clean ? cleanCaption(text) : text))
      .filter((text) => text.trim() !== "")
      .map((text) => fill(setting.answer, text));
  };
}

/** `{text}` stands for the text, `{a text}` for it with its article. */
function fill(answer: string, text: string): string {
  const withArticle = `${/^[aeiou]/.test(text) ? "an" : "a"} ${text}`;
  return answer.replace("{a text}", () => withArticle).replace("{text}", () => text);
}
