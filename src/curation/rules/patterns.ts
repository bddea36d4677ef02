/**
 * Regular expressions from files of rules, and what is left over from other places (`leftovers`). They run in RE2's engine, whose time
 * grows with the text and not faster, whatever the expression: none can hang a run.
 */
import { RE2JS } from "re2js";
import { z } from "zod";
import { quoted } from "./judged-text.ts";
import { rule } from "./rule.ts";

const flagBits: Readonly<Record<string, number>> = { i: RE2JS.CASE_INSENSITIVE, m: RE2JS.MULTILINE, s: RE2JS.DOTALL };

/** @throws Error saying what is wrong with the expression */
export function compilePattern(pattern: string, flags = ""): RE2JS {
  try {
    return RE2JS.compile(
      pattern,
      [...flags].reduce((bits, flag) => bits | (flagBits[flag] ?? 0), 0),
    );
  } catch (cause) {
    throw new Error(
      `the expression ${pattern} cannot be used: ${(cause as Error).message} (the syntax is RE2's: no backreferences, no lookaround)`,
      { cause },
    );
  }
}

export const leftovers = rule(
  // What it is called, and what it looks like; false where it may stay.
  z.strictObject({ patterns: z.record(z.string(), z.union([z.string(), z.literal(false)])) }),
  ({ patterns }) => {
    const compiled = Object.entries(patterns).flatMap(([what, pattern]) =>
      pattern === false ? [] : [{ what, expression: compilePattern(pattern, "i") }],
    );
    return ({ raw }) => {
      for (const { what, expression } of compiled) {
        const match = expression.matcher(raw);
        if (match.find()) return `has ${what}, ${quoted(match.group() ?? "", 40)}`;
      }
      return undefined;
    };
  },
);
