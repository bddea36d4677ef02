/** Text, sizes, durations and errors as they are printed. */

/** Control characters, which a terminal would execute, and characters that change the direction of writing. */
const control = /[\p{Cc}\u2028\u2029\u202a-\u202e\u2066-\u2069]/gu;

/** Untrusted text on one line, with control characters escaped. */
export function printable(text: string): string {
  return text.replace(control, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

/** Generated text without control characters other than line breaks and tabs. */
export function readable(text: string): string {
  return text.replace(control, (c) => (c === "\n" || c === "\t" ? c : ""));
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

/** The message of an error; those of the operating system in plain words. */
export function explain(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const { code, path } = error as NodeJS.ErrnoException;
  const problem = code ? systemErrors[code] : undefined;
  return problem && path ? `${path}: ${problem}` : error.message;
}

const systemErrors: Readonly<Record<string, string>> = {
  ENOENT: "no such file or folder",
  EACCES: "permission denied",
  EPERM: "permission denied",
  EISDIR: "is a folder; expected a file",
  ENOTDIR: "a part of this path is a file; expected a folder",
  ENOSPC: "the disk is full",
  EROFS: "the disk is read-only",
};
