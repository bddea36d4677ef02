/** `minigpt4 curate status`: where a project stands. */
import type { Command } from "commander";
import { describeStep } from "../../curation/describe.ts";
import { polishStep, requestStep } from "../../curation/polishing/plan.ts";
import { type ProjectStatus, statusOf } from "../../curation/status.ts";
import { CurationStore } from "../../curation/store.ts";
import { type ProjectFlags, projectOption } from "../options.ts";
import { formatCount, printable } from "../text.ts";

export function registerStatus(curate: Command): void {
  curate
    .command("status")
    .summary("show where a project stands")
    .description(
      "Shows how many images went into each step of a project and came out of it, what rules and persons decided, and what it cost. " +
        "It can be asked while a step runs.",
    )
    .addOption(projectOption())
    .option("--json", "print the counts as one JSON object")
    .addHelpText("after", "\nExamples:\n  minigpt4 curate status\n  minigpt4 curate status --project second.db --json")
    .action(status);
}

function status({ project, json }: ProjectFlags & { readonly json?: boolean }): void {
  const store = CurationStore.open(project);
  try {
    const found = statusOf(store);
    console.log(json ? JSON.stringify(found) : statusTable(found));
  } finally {
    store.close();
  }
}

/** The counts as lines for people. */
export function statusTable(status: ProjectStatus): string {
  const { images, steps, standing, authors } = status;
  const notes = notesOf(status);
  const rows = Object.entries(steps).map(([step, { in: before, out }]) => {
    const note = notes[step as keyof typeof steps].join(", ");
    return `${step.padEnd(10)}${cell(before)}${cell(out)}${note && `   ${note}`}`;
  });
  const costs = authors
    .filter(({ kind }) => kind !== "edited")
    .map(
      ({ author, kind, texts, promptTokens, completionTokens, seconds }) =>
        `${cell(texts)}${cell(promptTokens, 13)}${cell(completionTokens, 13)}${cell(seconds, 11)}   ${kind} by ${printable(author)}`,
    );
  return [
    `step      ${"in".padStart(9)}${"out".padStart(9)}`,
    ...rows,
    "",
    `${formatCount(images)} images: ${formatCount(standing.kept)} kept, ${formatCount(standing.dropped)} dropped, ` +
      `${formatCount(standing.open)} open, ${formatCount(standing.empty)} without a text`,
    ...(costs.length > 0 ? ["", `    texts  tokens read    and said    seconds`, ...costs] : []),
  ].join("\n");
}

/** What is worth saying of each step. */
function notesOf(status: ProjectStatus): Record<keyof ProjectStatus["steps"], string[]> {
  const { failures, rules, persons, edited, judgedBySeveral, disagreements } = status;
  const failed = (step: string, what: string) => (failures[step] ? [`${formatCount(failures[step])} ${what}`] : []);
  return {
    describe: failed(describeStep, "failed"),
    continue: [],
    polish: [...failed(polishStep, "had an answer of no use"), ...failed(requestStep, "had no answer")],
    filter: Object.entries(rules).map(([rule, count]) => `${printable(rule)} ${formatCount(count)}`),
    review: [
      ...persons.map(
        ({ person, kept, dropped }) =>
          `${printable(person)}: ${formatCount(kept)} kept and ${formatCount(dropped)} dropped`,
      ),
      ...(edited > 0 ? [`${formatCount(edited)} edited`] : []),
      ...(judgedBySeveral > 0
        ? [`several judged ${formatCount(judgedBySeveral)}, on ${formatCount(disagreements)} they disagree`]
        : []),
    ],
  };
}

function cell(count: number, width = 9): string {
  return formatCount(count).padStart(width);
}
