/** Text, sizes, durations and errors as they are printed. */

import { controlCharacters } from "../files/errors.ts";

/** Generated text without control characters other than line breaks and tabs. */
export function readable(text: string): string {
  return text.replace(controlCharacters, (c) => (c === "\n" || c === "\t" ? c : ""));
}

/** Generated text on one line. */
export function oneLine(text: string): string {
  return readable(text.replace(/\s+/g, " "));
}

const units = ["kB", "MB", "GB", "TB"];

/** Bytes in decimal units with three digits: `512 B`, `1.02 kB`, `98.4 MB`. */
export function formatBytes(bytes: number): string {
  if (bytes < 1000) return `${bytes} B`;
  let unit = 0;
  let value = bytes / 1000;
  for (; value >= 999.5 && unit < units.length - 1; unit++) value /= 1000;
  return `${Number(value.toPrecision(3))} ${units[unit]}`;
}

/** A count with thousands separators: `20,000`. */
export function formatCount(count: number): string {
  return Math.round(count).toLocaleString("en-US");
}

/** Seconds as the two largest units that matter: `45 s`, `12 min 5 s`, `3 h 20 min`, `2 d 4 h`. */
export function formatDuration(seconds: number): string {
  const whole = Math.ceil(seconds);
  const parts = [
    [Math.floor(whole / 86_400), "d"],
    [Math.floor(whole / 3600) % 24, "h"],
    [Math.floor(whole / 60) % 60, "min"],
    [whole % 60, "s"],
  ] as const;
  const first = parts.findIndex(([count]) => count > 0);
  if (first < 0) return "0 s";
  return parts
    .slice(first, first + 2)
    .filter(([count], i) => i === 0 || count > 0)
    .map(([count, unit]) => `${count} ${unit}`)
    .join(" ");
}
