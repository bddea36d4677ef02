/** The reviewer's name, which the browser keeps. */
import { preference } from "../shell/preferences.ts";

export const longestName = 80;

export const reviewer = preference<string | undefined>("reviewer", (kept) =>
  typeof kept === "string" && kept.trim() !== "" && kept.length <= longestName ? kept : undefined,
);
