/** Captions as the first training stage reads them. */

const MAX_WORDS = 50;

/** Lower-cased, `.!"()*#:;~` to spaces, white space to single spaces, at most 50 words (BLIP's caption processor). */
export function cleanCaption(caption: string): string {
  const words = caption
    .toLowerCase()
    .replace(/[.!"()*#:;~]/g, " ")
    .split(/\s+/)
    .filter((word) => word !== "");
  return words.slice(0, MAX_WORDS).join(" ");
}
