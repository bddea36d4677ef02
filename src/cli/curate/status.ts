/** `minigpt4 curate status`: shows the progress of a project. */
import type { Command } from "commander";
import { describeStep } from "../../curation/describe.ts";
import { polishStep, requestStep } from "../../curation/polishing/plan.ts";
import { type ProjectStatus, projectStatus } from "../../curation/status.ts";
import { CurationStore } from "../../curation/store.ts";
import { printable } from "../../files/errors.ts";
import type { CommandContext } from "../context.ts";
import { type ProjectFlags, projectOption } from "../options.ts";
import { formatCount } from "../text.ts";

export function defineStatus(command: Command, context: CommandContext): void {
  command
    .description(
      "Show how many images entered and left each step of a project, the decisions of rules and reviewers, and the costs. It " +
        "also works while a step runs.",
    )
    .addOption(projectOption())
    .option("--json", "print the counts as one JSON object")
    .addHelpText("after", "\nExamples:\n  minigpt4 curate status\n  minigpt4 curate status --project second.db --json")
    .action((flags) => status(context, flags));
}

function status(context: CommandContext, { project, json }: ProjectFlags & { readonly json?: boolean }): void {
  const store = CurationStore.open(project);
  try {
    const found = projectStatus(store);
    context.print(json ? JSON.stringify(found) : statusTable(found));
  } finally {
    store.close();
  }
}

/** The counts as a table. */
export function statusTable(status: ProjectStatus): string {
  const { images, steps, standing, authors } = status;
  const notes = stepNotes(status);
  const rows = Object.entries(steps).map(([step, { in: before, out }]) => {
    const note = notes[step as keyof typeof steps].join(", ");
    return `${step.padEnd(10)}${cell(before)}${cell(out)}${note && `   ${note}`}`;
  });
  const costs = authors
    .filter(({ kind }) => kind !== "edited")
    .map(
      ({ author, kind, texts, promptTokens, completionTokens, seconds }) =>
        `${cell(texts)}${cell(promptTokens, 15)}${cell(completionTokens, 15)}${cell(seconds, 11)}   ${kind} by ${printable(author)}`,
    );
  return [
    `step      ${"in".padStart(9)}${"out".padStart(9)}`,
    ...rows,
    "",
    `${formatCount(images)} images: ${formatCount(standing.kept)} kept, ${formatCount(standing.dropped)} dropped, ` +
      `${formatCount(standing.open)} open, ${formatCount(standing.empty)} without a text`,
    ...(costs.length > 0 ? ["", `    texts  prompt tokens  output tokens    seconds`, ...costs] : []),
  ].join("\n");
}

/** Remarks on each step. */
function stepNotes(status: ProjectStatus): Record<keyof ProjectStatus["steps"], string[]> {
  const { failures, rules, persons, edited, judgedBySeveral, disagreements } = status;
  const failed = (step: string, what: string) => (failures[step] ? [`${formatCount(failures[step])} ${what}`] : []);
  return {
    describe: failed(describeStep, "failed"),
    continue: [],
    polish: [...failed(polishStep, "had no usable answer"), ...failed(requestStep, "had a failed request")],
    filter: Object.entries(rules).map(([rule, count]) => `${printable(rule)} ${formatCount(count)}`),
    review: [
      ...persons.map(
        ({ person, kept, dropped }) =>
          `${printable(person)}: ${formatCount(kept)} kept and ${formatCount(dropped)} dropped`,
      ),
      ...(edited > 0 ? [`${formatCount(edited)} edited`] : []),
      ...(judgedBySeveral > 0
        ? [`${formatCount(judgedBySeveral)} judged by several reviewers, ${formatCount(disagreements)} disagreements`]
        : []),
    ],
  };
}

function cell(count: number, width = 9): string {
  return formatCount(count).padStart(width);
}
