/** What the two stages of MiniGPT-4 learn from a picture and its text (arXiv 2304.10592, sections 3.1 and 3.3). */
import { parsePrompt, tokenizePrompt } from "../text/prompts.ts";
import type { Tokenizer } from "../text/tokenizer.ts";
import type { Piece } from "./batch.ts";

export interface AnswerOptions {
  /** Ends every answer, and is learned with it: a newline in the first stage, "###" in the second. */
  readonly endSym: string;
  /** Longer answers, end included, are cut. */
  readonly maxLength: number;
}

/** The first stage has no prompt: the picture follows the beginning-of-sequence token. */
export function stage1Prompt(tokenizer: Tokenizer): Piece[] {
  return promptPieces("<ImageHere>", tokenizer);
}

/** The pieces of a prompt that has `<ImageHere>` where the picture goes. */
export function promptPieces(prompt: string, tokenizer: Tokenizer): Piece[] {
  return tokenizePrompt(parsePrompt(prompt), tokenizer).map((piece) => ("ids" in piece ? piece : "image"));
}

/** The tokens that are learned: the text and the end symbol, at most `maxLength`. */
export function answerTokens(text: string, { endSym, maxLength }: AnswerOptions, tokenizer: Tokenizer): number[] {
  return tokenizer.encode(text + endSym).slice(0, maxLength);
}
