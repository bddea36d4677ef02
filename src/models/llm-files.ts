/** The files of a language model's folder, as Hugging Face has it. */

/** What lies there beside the weights. */
export const smallFiles = [
  "config.json",
  "generation_config.json",
  "tokenizer.model",
  "tokenizer.json",
  "tokenizer_config.json",
  "special_tokens_map.json",
  "added_tokens.json",
];
