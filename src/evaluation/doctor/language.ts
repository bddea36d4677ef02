/** Whether a language model knows its language: noise is worse than any model that was trained. */
import type { OpenLlama } from "../../models/open-llama.ts";
import { type LayerwiseOptions, readLayerByLayer } from "../layer-by-layer.ts";
import type { Findings } from "./finding.ts";

const sentences = [
  "The sun rises in the east and sets in the west, and at night we can see the moon and the stars.",
  "Water freezes at zero degrees and boils at one hundred degrees.",
  "A dog is an animal with four legs and a tail that likes to run after a ball.",
  "She opened the door, looked around the room, and said hello to everyone.",
  "In winter the days are short and the nights are long and cold.",
  "He went to the shop to buy bread, milk, and a dozen eggs.",
];

/** Perplexity that small models (135M parameters) stay well below, and that noise is far above. */
const noise = 1000;
const strange = 150;

/** @returns the perplexity, where there is one */
export async function checkLanguage(
  findings: Findings,
  llm: OpenLlama,
  options: LayerwiseOptions,
): Promise<number | undefined> {
  const ids = sentences.map((sentence) => llm.tokenizer.encode(sentence, { bos: true }));
  const rows = llm.checkpoint.tensors.get("model.embed_tokens.weight")?.shape[0] ?? 0;
  // Ids that the table does not have are told of elsewhere.
  const texts = ids.filter((text) => text.length > 1 && text.every((id) => id < rows));
  if (texts.length === 0) return undefined;
  const result = await readLayerByLayer(llm, texts, options);
  if ("brokenAt" in result) {
    findings.fault(
      "language",
      `What comes out of ${result.brokenAt} is infinite or no number`,
      "The weights of this place are damaged: import the model again, from files that are whole.",
    );
    return undefined;
  }
  const perplexity = Math.exp(result.loss);
  const found = `The language model finds plain English as surprising as a choice among ${Math.round(perplexity)} words (perplexity)`;
  const causes =
    "Usual causes: a difference that was not added to its base (minigpt4 delta apply), another model's tokenizer, damaged or badly rounded weights.";
  if (perplexity > noise) findings.fault("language", `${found}; what it says is noise`, causes);
  else if (perplexity > strange) findings.note("language", `${found}; trained models stay below ${strange}`, causes);
  return perplexity;
}
