/** `minigpt4 curate filter`: rules judge the texts. */
import type { Command } from "commander";
import { applyRules, type DroppedText, type FilterOptions, type FilterReport } from "../../curation/filter.ts";
import { defaultRules, type RuleSet, readRules } from "../../curation/rules/rule-set.ts";
import { CurationStore } from "../../curation/store.ts";
import { oneLine } from "../describe.ts";
import { type ProjectFlags, projectOption, untilInterrupted } from "../options.ts";
import { countDisplay } from "../progress.ts";
import { formatCount, printable } from "../text.ts";

interface FilterFlags extends ProjectFlags {
  readonly rules?: string;
  readonly dryRun?: boolean;
  readonly json?: boolean;
}

export function registerFilter(curate: Command): void {
  curate
    .command("filter")
    .summary("drop texts by rules: apologies, repetitions, meaningless characters, other languages")
    .description(
      "Has rules judge the current text of every image. A text that breaks one is dropped, unless a person keeps it; nothing is removed. Rules judge a text once; changed rules, and changed texts, are judged again.",
    )
    .addOption(projectOption())
    .option("--rules <file>", `a YAML file with what is to be otherwise than in ${defaultRules}`)
    .option("--dry-run", "say what the rules would drop, and write nothing")
    .option("--json", "print one JSON object, with every dropped text and the reasons")
    .addHelpText(
      "after",
      `
Examples:
  minigpt4 curate filter --dry-run
  minigpt4 curate filter --rules my-rules.yaml
  minigpt4 curate filter --json > dropped.json`,
    )
    .action(filter);
}

async function filter({ project, rules: path, dryRun = false, json }: FilterFlags): Promise<void> {
  const signal = untilInterrupted();
  const rules = await readRules(path);
  const store = CurationStore.open(project);
  try {
    const report = await filterProject(store, rules, { dryRun, signal });
    console.log(json ? JSON.stringify(report, null, 2) : filterText(report, dryRun));
  } finally {
    store.close();
  }
}

/** Has rules judge the texts, and shows how far it is. @throws as `applyRules` */
export async function filterProject(
  store: CurationStore,
  rules: RuleSet,
  options: FilterOptions,
): Promise<FilterReport> {
  const display = countDisplay("judged");
  try {
    return await applyRules(store, rules, { ...options, onProgress: display.update });
  } finally {
    display.stop();
  }
}

/** What the rules said, for people. */
export function filterText({ judged, known, empty, kept, dropped, broken }: FilterReport, dryRun = false): string {
  const lines = [
    `${formatCount(judged)} texts judged${dryRun ? " (dry run: nothing was written)" : ""}, ${formatCount(known)} were judged before, ${formatCount(empty)} images have no text`,
    `${formatCount(kept)} pass, ${formatCount(dropped.length)} dropped`,
  ];
  for (const [rule, count] of Object.entries(broken)) {
    lines.push(`  ${formatCount(count).padStart(6)}  ${printable(rule).padEnd(22)}  ${example(rule, dropped)}`);
  }
  return lines.join("\n");
}

/** What the rule found, and in which image's text. */
function example(rule: string, dropped: readonly DroppedText[]): string {
  for (const { name, reasons } of dropped) {
    const message = reasons.find((reason) => reason.rule === rule)?.message;
    if (message !== undefined) return `${printable(name)}: ${oneLine(message)}`;
  }
  return "";
}
