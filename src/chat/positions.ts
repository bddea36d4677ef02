/** A prompt as a language model reads it: a sequence of positions. */
import { type Prompt, tokenizePrompt } from "../text/prompts.ts";
import type { Tokenizer } from "../text/tokenizer.ts";
import type { ImageTokens } from "./image-reader.ts";
import type { Position } from "./reading-feeds.ts";

/** Token ids, and the image tokens of each picture at its place. */
export function positionsOf(prompt: Prompt, images: readonly ImageTokens[], tokenizer: Tokenizer): Position[] {
  return tokenizePrompt(prompt, tokenizer).flatMap((piece): readonly Position[] => {
    if ("ids" in piece) return piece.ids;
    const tokens = images[piece.image];
    if (!tokens)
      throw new Error(`The prompt has a place for image ${piece.image + 1}, but ${images.length} were given`);
    return tokens;
  });
}

/**
 * The end of a sequence that leaves room for `maxNewTokens` within `maxLength` positions: the oldest positions are
 * dropped from the front, as in the original demo.
 */
export function fitContext(
  sequence: readonly Position[],
  maxNewTokens: number,
  maxLength: number,
): readonly Position[] {
  return sequence.slice(Math.max(0, sequence.length + maxNewTokens - maxLength));
}
