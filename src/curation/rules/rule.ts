/** What a rule is. */
import type { z } from "zod";
import type { JudgedText } from "./judged-text.ts";

/** What is wrong with a text, for people; undefined if nothing is. */
export type Check = (text: JudgedText) => string | undefined;

export interface Rule<Options> {
  /** What can be said of it in a file of rules. */
  readonly options: z.ZodType<Options>;
  /**
   * The rule with its options, for texts of a language (ISO 639-1).
   * @throws Error saying what is wrong with the options
   */
  prepare(options: Options, language: string): Check | Promise<Check>;
}

/** Lets TypeScript see that schema and function fit. */
export function rule<Options>(options: z.ZodType<Options>, prepare: Rule<Options>["prepare"]): Rule<Options> {
  return { options, prepare };
}
