/** `minigpt4 curate filter`: drops texts by rules. */
import type { Command } from "commander";
import { applyRules, type DroppedText, type FilterOptions, type FilterReport } from "../../curation/filter.ts";
import { defaultRules, type RuleSet, readRules } from "../../curation/rules/rule-set.ts";
import { CurationStore } from "../../curation/store.ts";
import { printable } from "../../files/errors.ts";
import type { CommandContext } from "../context.ts";
import { type ProjectFlags, projectOption } from "../options.ts";
import { ProgressDisplay } from "../progress.ts";
import { formatCount, oneLine } from "../text.ts";

interface FilterFlags extends ProjectFlags {
  readonly rules?: string;
  readonly dryRun?: boolean;
  readonly json?: boolean;
}

export function defineFilter(command: Command, context: CommandContext): void {
  command
    .description(
      "Apply rules to the current text of every image. A text that breaks a rule is dropped, unless a reviewer keeps it; nothing " +
        "is deleted. A text is judged again only if the text or the rules change.",
    )
    .addOption(projectOption())
    .option("--rules <file>", `YAML file that overrides rules of ${defaultRules}`)
    .option("--dry-run", "print what the rules would drop without writing it")
    .option("--json", "print the report as one JSON object, with every dropped text and its reasons")
    .addHelpText(
      "after",
      `
Examples:
  minigpt4 curate filter --dry-run
  minigpt4 curate filter --rules my-rules.yaml
  minigpt4 curate filter --json > dropped.json`,
    )
    .action((flags) => filter(context, flags));
}

async function filter(
  context: CommandContext,
  { project, rules: path, dryRun = false, json }: FilterFlags,
): Promise<void> {
  const signal = context.untilInterrupted();
  const rules = await readRules(path);
  const store = CurationStore.open(project);
  try {
    const report = await filterProject(context, store, { rules, dryRun, signal });
    context.print(json ? JSON.stringify(report, null, 2) : filterText(report, dryRun));
  } finally {
    store.close();
  }
}

/** Applies rules with a progress display. @throws as `applyRules` */
export async function filterProject(
  context: CommandContext,
  store: CurationStore,
  { rules, ...options }: FilterOptions & { readonly rules: RuleSet },
): Promise<FilterReport> {
  const display = new ProgressDisplay(context);
  try {
    return await applyRules(store, rules, { ...options, onProgress: display.task("texts judged") });
  } finally {
    display.stop();
  }
}

/** The report as text. */
export function filterText({ judged, known, empty, kept, dropped, broken }: FilterReport, dryRun = false): string {
  const lines = [
    `${formatCount(judged)} texts judged${dryRun ? " (dry run, nothing written)" : ""}, ${formatCount(known)} judged before, ${formatCount(empty)} images without text`,
    `${formatCount(kept)} pass, ${formatCount(dropped.length)} dropped`,
  ];
  for (const [rule, count] of Object.entries(broken)) {
    lines.push(`  ${formatCount(count).padStart(6)}  ${printable(rule).padEnd(22)}  ${example(rule, dropped)}`);
  }
  return lines.join("\n");
}

/** A text that broke the rule. */
function example(rule: string, dropped: readonly DroppedText[]): string {
  for (const { name, reasons } of dropped) {
    const message = reasons.find((reason) => reason.rule === rule)?.message;
    if (message !== undefined) return `${printable(name)}: ${oneLine(message)}`;
  }
  return "";
}
