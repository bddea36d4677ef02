/** Rule sets: YAML files that configure the built-in rules and add custom ones. */

import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { parseDocument } from "yaml";
import { z } from "zod";
import type { Reason } from "../entry.ts";
import {
  counted,
  foreignLanguage,
  foreignScript,
  length,
  meaninglessCharacters,
  outOfBounds,
  phrases,
  repeatedRuns,
  repeatedSentences,
  stuttering,
  unfinished,
} from "./checks.ts";
import { type Check, compilePattern, leftovers, prepareText, quoteExcerpt, type Rule } from "./rule.ts";

const bound = z.number().int().min(0).max(1_000_000).optional();

const customRuleSchema = z
  .strictObject({
    name: z.string().min(1),
    /** A regular expression. Texts that match it more than `max` times (0 without `min`) or less than `min` times are dropped. */
    pattern: z.string().min(1).optional(),
    /** i: ignore case; m: ^ and $ match at lines; s: . matches newlines. */
    flags: z
      .string()
      .regex(/^[ims]*$/, "can have the letters i, m and s")
      .default(""),
    /** What to count, instead of a pattern. */
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

type CustomRule = z.infer<typeof customRuleSchema>;

/** @throws Error if the expression is invalid */
function createCustomCheck({ pattern, flags, count, min, max }: CustomRule): Check {
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
      return `has ${quoteExcerpt(match.group() ?? "", 40)}${most > 0 ? `, more than ${most} times` : ""}`;
    }
    return times < least ? `has ${pattern} ${times} times; at least ${least} are wanted` : undefined;
  };
}

/** The built-in rules by their names in files and verdicts, in the order of the checks. */
const builtIn = {
  apologies: phrases,
  self_talk: phrases,
  repeated_sentences: repeatedSentences,
  repeated_runs: repeatedRuns,
  stuttering,
  meaningless_characters: meaninglessCharacters,
  leftovers,
  foreign_script: foreignScript,
  foreign_language: foreignLanguage,
  unfinished,
  length,
};
type RuleName = keyof typeof builtIn;
const ruleNames = Object.keys(builtIn) as RuleName[];

/** Increase it when the same file would give other verdicts than before, so that texts are judged again. */
const edition = 1;

/** Longer texts are dropped without running the rules. */
const maxLength = 100_000;

/** Path of the default rules, which other files override. */
export const defaultRules = fileURLToPath(new URL("../../../recipes/curation-rules.yaml", import.meta.url));

/** Compiled rules. */
export interface RuleSet {
  /** Identifies the rules: equal rules have equal digests. */
  readonly digest: string;
  /** Returns every rule that a text breaks. */
  check(text: string): Reason[];
}

const orFalse = <T>(options: z.ZodType<T>) => z.union([z.literal(false), options]);

const fileSchema = z.strictObject({
  /** ISO 639-1 code. */
  language: z.string().regex(/^[a-z]{2}$/, "is two letters, for example en"),
  rules: z.strictObject(
    Object.fromEntries(ruleNames.map((name) => [name, orFalse(builtIn[name].options as z.ZodType)])) as {
      [Name in RuleName]: ReturnType<typeof orFalse<z.infer<(typeof builtIn)[Name]["options"]>>>;
    },
  ),
  own: z
    .array(customRuleSchema)
    .refine((own) => new Set([...ruleNames, ...own.map(({ name }) => name)]).size === ruleNames.length + own.length, {
      error: "two rules have the same name",
    }),
});

/**
 * Reads a rule set. The file overrides the default rules; `false` turns a rule off.
 *
 * @throws Error naming the file and what is wrong in it
 */
export async function readRules(path: string = defaultRules): Promise<RuleSet> {
  const defaults = await readYaml(defaultRules);
  const { data, error } = fileSchema.safeParse(
    path === defaultRules ? defaults : override(defaults, await readYaml(path)),
  );
  if (!data) {
    const problems = error.issues.map(({ path: keys, message }) => `${keys.join(".") || "the file"}: ${message}`);
    throw new Error(`${path}: ${problems.join("; ")}`);
  }
  const { language, rules, own } = data;
  const checks: { rule: string; check: Check }[] = [];
  const prepare = async (rule: string, check: () => Check | Promise<Check>) => {
    try {
      checks.push({ rule, check: await check() });
    } catch (cause) {
      throw new Error(`${path}: ${rule}: ${(cause as Error).message}`, { cause });
    }
  };
  for (const name of ruleNames) {
    const options = rules[name];
    // The schema of the rule has validated its options.
    if (options !== false) await prepare(name, () => (builtIn[name] as Rule<unknown>).createCheck(options, language));
  }
  for (const rule of own) await prepare(rule.name, () => createCustomCheck(rule));
  return {
    digest: createHash("sha256")
      .update(JSON.stringify([edition, data]))
      .digest("hex")
      .slice(0, 12),
    check: (text) => judge(text, checks),
  };
}

function judge(text: string, checks: readonly { rule: string; check: Check }[]): Reason[] {
  if (text.length > maxLength) {
    return [{ rule: "length", message: `has ${text.length} characters; at most ${maxLength} are looked at` }];
  }
  const prepared = prepareText(text);
  return checks.flatMap(({ rule, check }) => {
    const message = check(prepared);
    return message === undefined ? [] : [{ rule, message }];
  });
}

async function readYaml(path: string): Promise<unknown> {
  const text = await readFile(path, "utf8").catch((cause: Error) => {
    throw new Error(`The rules ${path} cannot be read: ${cause.message}`, { cause });
  });
  const document = parseDocument(text);
  const [broken] = document.errors;
  if (broken) throw new Error(`${path}: ${broken.message}`);
  try {
    return document.toJS() ?? {};
  } catch (cause) {
    throw new Error(`${path}: ${(cause as Error).message}`, { cause });
  }
}

/** Merges objects recursively; other values are replaced. `true` keeps the default of an object. */
function override(defaults: unknown, value: unknown): unknown {
  if (value === true && isObject(defaults)) return defaults;
  if (!isObject(defaults) || !isObject(value)) return value;
  const result: Record<string, unknown> = { ...defaults };
  for (const [key, inner] of Object.entries(value))
    result[key] = Object.hasOwn(defaults, key) ? override(defaults[key], inner) : inner;
  return result;
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
