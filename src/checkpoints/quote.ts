/** Text of a file in messages: shortened, and without characters that a terminal would obey. */
export function quote(text: string): string {
  const longest = 100;
  return JSON.stringify(text.length > longest ? `${text.slice(0, longest)}...` : text);
}
