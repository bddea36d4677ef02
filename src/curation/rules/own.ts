/** Rules that somebody adds: what must be found in a text or must not, or how much of something it may have. */
import { z } from "zod";
import { quoted } from "./judged-text.ts";
import { counted, outOfBounds } from "./length.ts";
import { compilePattern } from "./patterns.ts";
import type { Check } from "./rule.ts";

const bound = z.number().int().min(0).max(1_000_000).optional();

export const ownRuleSchema = z
  .strictObject({
    name: z.string().min(1),
    /** A regular expression; a text that has it more than `max` times (default: at all) or less than `min` times is dropped. */
    pattern: z.string().min(1).optional(),
    /** i: capitals do not matter; m: ^ and $ are those of lines; s: . is also a new line. */
    flags: z
      .string()
      .regex(/^[ims]*$/, "can have the letters i, m and s")
      .default(""),
    /** Or what is counted. */
    count: z.enum(counted).optional(),
    min: bound,
    max: bound,
  })
  .refine(
    ({ pattern, count }) => (pattern === undefined) !== (count === undefined),
    "needs either a pattern or a count",
  )
  .refine(({ count, min, max }) => count === undefined || min !== undefined || max !== undefined, "needs min or max")
  .refine(({ min = 0, max = min }) => min <= max, "min is more than max");

export type OwnRule = z.infer<typeof ownRuleSchema>;

/** @throws Error saying what is wrong with the expression */
export function ownRule({ pattern, flags, count, min, max }: OwnRule): Check {
  if (count) return (text) => outOfBounds(text, count, min, max);
  const expression = compilePattern(pattern ?? "", flags);
  const least = min ?? 0;
  const most = max ?? (min === undefined ? 0 : undefined);
  const enough = most === undefined ? least : most + 1;
  return ({ raw }) => {
    const match = expression.matcher(raw);
    let times = 0;
    while (times < enough && match.find()) times++;
    if (most !== undefined && times > most) {
      return `has ${quoted(match.group() ?? "", 40)}${most > 0 ? `, more than ${most} times` : ""}`;
    }
    return times < least ? `has ${pattern} ${times} times; at least ${least} are wanted` : undefined;
  };
}
