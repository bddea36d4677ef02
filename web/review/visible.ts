/** Characters that would be invisible, or turn the text around, made visible. */

/** Controls but for line ends and tabs, what changes the direction of writing, spaces of no width, and marks of no text. */
const hidden = /[\p{Cc}\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\uffff\ud800-\udfff]/u;

export interface Stretch {
  readonly text: string;
  /** A character that is shown by its code. */
  readonly hidden: boolean;
}

/** The text in stretches; each hidden character is one of its own, written like `U+202E`. */
export function stretchesOf(text: string): Stretch[] {
  const stretches: Stretch[] = [];
  let plain = "";
  const flush = () => {
    if (plain !== "") stretches.push({ text: plain, hidden: false });
    plain = "";
  };
  for (const character of text) {
    if (!isHidden(character)) {
      plain += character;
      continue;
    }
    flush();
    stretches.push({ text: codeOf(character), hidden: true });
  }
  flush();
  return stretches;
}

/** In one string, for labels and titles. */
export function visible(text: string): string {
  return stretchesOf(text)
    .map((stretch) => (stretch.hidden ? `[${stretch.text}]` : stretch.text))
    .join("");
}

function isHidden(character: string): boolean {
  return character !== "\n" && character !== "\t" && hidden.test(character);
}

function codeOf(character: string): string {
  return `U+${(character.codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(4, "0")}`;
}
