/** A text as rules look at it: its sentences and words. All of it takes time in proportion to the text, whatever the text is. */

export interface JudgedText {
  readonly raw: string;
  /** With their punctuation, as they are written; what has neither letter nor digit is none. */
  readonly sentences: readonly string[];
  /** In lower case, with straight apostrophes. */
  readonly words: readonly string[];
}

/** After a full stop and a space, after a full stop of the languages that write no spaces, and at a new line. */
const sentenceEnd = /(?<=[.!?…؟।]["'”’»)\]]{0,3})\s+|(?<=[。！？][”」』）]?)(?![”」』）])|\n+/u;

/** A word; in writing without spaces between words, each character. */
const word =
  /[\p{sc=Han}\p{sc=Hira}\p{sc=Kana}\p{sc=Thai}\p{sc=Laoo}\p{sc=Khmr}\p{sc=Mymr}]\p{M}*|[\p{L}\p{M}\p{N}]+(?:['-][\p{L}\p{M}\p{N}]+)*/gu;

export function judgedText(raw: string): JudgedText {
  const sentences = raw
    .split(sentenceEnd)
    .map((sentence) => sentence.trim())
    .filter((sentence) => /[\p{L}\p{N}]/u.test(sentence));
  return { raw, sentences, words: wordsOf(raw) };
}

/** The words of a text, in lower case, with straight apostrophes. */
export function wordsOf(text: string): string[] {
  return text.toLowerCase().replaceAll("’", "'").match(word) ?? [];
}

/** The beginning of a text in quotation marks, for a message of one line. */
export function quoted(text: string, length = 80): string {
  const characters = [...text.slice(0, 2 * length + 2).replace(/\s+/g, " ")];
  return `"${characters.length > length ? `${characters.slice(0, length).join("").trimEnd()}...` : characters.join("")}"`;
}
