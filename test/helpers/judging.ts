/** The rules that come with the package, and changed ones, on texts of tests. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { type RuleSet, readRules } from "../../src/curation/rules/rule-set.ts";
import { temporaryFolder } from "./tiny-model.ts";

const usual = await readRules();

/** What a rule finds in a text; undefined if nothing. */
export function found(rule: string, text: string, rules: RuleSet = usual): string | undefined {
  return rules.check(text).find((reason) => reason.rule === rule)?.message;
}

/** Names of the rules that a text breaks. */
export function broken(text: string, rules: RuleSet = usual): string[] {
  return rules.check(text).map(({ rule }) => rule);
}

/** Gives a function that reads rules from a file with this content. */
export function rulesFiles(): (yaml: string) => Promise<RuleSet> {
  const folder = temporaryFolder();
  let count = 0;
  return async (yaml) => {
    const path = join(folder, `${count++}.yaml`);
    writeFileSync(path, yaml);
    return readRules(path);
  };
}
