/** Error messages that people can act on: which file, which system error in plain words, and untrusted text made printable. */

/** Runs `work`; every error it throws names `path` (a file, or a place in one). */
export async function inFile<T>(path: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    if (message.includes(path)) throw error;
    throw new Error(`${path}: ${message}`, { cause: error });
  }
}

/** Whether an error says that a file or folder does not exist. */
export function isMissing(error: unknown): boolean {
  return errorCode(error) === "ENOENT";
}

/** Whether an error says that the disk or the user's quota is full. */
export function isDiskFull(error: unknown): boolean {
  const code = errorCode(error);
  return code === "ENOSPC" || code === "EDQUOT";
}

/** The result of `operation`, or undefined if the file or folder does not exist. */
export async function unlessMissing<T>(operation: Promise<T>): Promise<T | undefined> {
  try {
    return await operation;
  } catch (error) {
    if (isMissing(error)) return undefined;
    throw error;
  }
}

/** What went wrong, without the path: the operating system's errors in plain words, the message of any other error. */
export function describeProblem(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return systemErrors[errorCode(error) ?? ""] ?? error.message;
}

/** What went wrong, for people: `PATH: problem` for the operating system's errors, the message of any other error. */
export function describeError(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const { path } = error as { readonly path?: string };
  return path && systemErrors[errorCode(error) ?? ""] ? `${path}: ${describeProblem(error)}` : error.message;
}

const systemErrors: Readonly<Record<string, string>> = {
  ENOENT: "no such file or folder",
  EACCES: "permission denied",
  EPERM: "permission denied",
  EISDIR: "is a folder; expected a file",
  ENOTDIR: "a part of this path is a file; expected a folder",
  ENOSPC: "the disk is full",
  EDQUOT: "the disk quota is exceeded",
  EROFS: "the disk is read-only",
};

function errorCode(error: unknown): string | undefined {
  return error instanceof Error && "code" in error ? String(error.code) : undefined;
}

/** Control characters, which a terminal would execute, and characters that change the direction of writing. */
export const controlCharacters = /[\p{Cc}\u2028\u2029\u202a-\u202e\u2066-\u2069]/gu;

/** Untrusted text in one line: control characters are escaped as `\uXXXX`. */
export function printable(text: string): string {
  return text.replace(controlCharacters, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

/** Untrusted text in quotes, for messages: shortened to 100 characters, control characters escaped. */
export function quote(text: string): string {
  const longest = 100;
  return printable(JSON.stringify(text.length > longest ? `${text.slice(0, longest)}...` : text));
}
