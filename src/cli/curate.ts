/** `minigpt4 curate`: builds a dataset for the second training stage, step by step. */
import type { Command } from "commander";
import type { CommandContext } from "./context.ts";
import { addCommands, type LazyCommand } from "./lazy-commands.ts";

/** The steps in their order; each is one file in `curate/`. */
const steps: readonly LazyCommand[] = [
  {
    name: "describe",
    summary: "describe images with a model",
    load: async () => (await import("./curate/describe.ts")).defineDescribeStep,
  },
  {
    name: "polish",
    summary: "rewrite the descriptions with a chat model",
    load: async () => (await import("./curate/polish.ts")).definePolish,
  },
  {
    name: "filter",
    summary: "drop texts by rules: apologies, repetitions, garbage, other languages",
    load: async () => (await import("./curate/filter.ts")).defineFilter,
  },
  {
    name: "review",
    summary: "review images and texts in the browser: keep, edit or drop them",
    load: async () => (await import("./curate/review.ts")).defineReview,
  },
  {
    name: "export",
    summary: "export what was kept as a dataset for the second stage",
    load: async () => (await import("./curate/export.ts")).defineExport,
  },
  {
    name: "status",
    summary: "show the progress of a project",
    load: async () => (await import("./curate/status.ts")).defineStatus,
  },
  {
    name: "run",
    summary: "describe, polish, filter and export as a recipe says",
    load: async () => (await import("./curate/run.ts")).defineRun,
  },
];

export function defineCurate(command: Command, context: CommandContext): void {
  command.description(
    "Build a small, clean dataset for the second training stage: a model describes images, another model polishes the texts, " +
      "rules and people filter them. A project is one file. Each step can be interrupted and continues where it stopped.",
  );
  addCommands(command, context, steps);
}
