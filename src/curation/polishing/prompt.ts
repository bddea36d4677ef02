/** What the polishing model is asked, and about how many tokens that takes. */

/** The paper's. */
export const polishingPrompt =
  "Fix the error in the given paragraph. Remove any repeating sentences, meaningless characters, not English sentences, and so on. Remove unnecessary repetition. Rewrite any incomplete sentences. Return directly the results without explanation. Return directly the input paragraph if it is already correct without explanation.";

/** Where the paragraph stands in a prompt of one's own. */
export const paragraphPlace = "{paragraph}";

/**
 * The user's message. The paper gives the instruction and says that the paragraph is given with it, not how they are joined: here the
 * paragraph follows after an empty line, with nothing around it. A prompt that says where the paragraph stands has it there.
 */
export function polishingMessage(prompt: string, paragraph: string): string {
  if (!prompt.includes(paragraphPlace)) return `${prompt}\n\n${paragraph}`;
  return prompt.split(paragraphPlace).join(paragraph);
}

/** About how many tokens a text has: English has four bytes in each. */
export function estimateTokens(text: string): number {
  return Math.ceil(Buffer.byteLength(text) / 4);
}

/** Room for an answer, in tokens: a polished text is seldom longer than the text. */
export function roomFor(text: string): number {
  return Math.max(64, Math.ceil(1.5 * estimateTokens(text)));
}
