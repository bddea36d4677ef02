/** `minigpt4 curate`: makes the second stage's data set, step by step. */
import type { Command } from "commander";
import { registerDescribeStep } from "./curate/describe.ts";
import { registerExport } from "./curate/export.ts";
import { registerFilter } from "./curate/filter.ts";
import { registerPolish } from "./curate/polish.ts";
import { registerReview } from "./curate/review.ts";
import { registerRun } from "./curate/run.ts";
import { registerStatus } from "./curate/status.ts";

/** One file for each step in `curate/`, in the order in which they are taken. */
const steps: readonly ((curate: Command) => void)[] = [
  registerDescribeStep,
  registerPolish,
  registerFilter,
  registerReview,
  registerExport,
  registerStatus,
  registerRun,
];

export function registerCurate(program: Command): void {
  const curate = program
    .command("curate")
    .summary("make a data set of images and their descriptions")
    .description(
      "Makes a small, clean data set for the second stage of training: a model describes images, another one polishes the texts, " +
        "rules and a person sort them out. A project is one file; each step can be stopped and goes on where it was.",
    );
  for (const register of steps) register(curate);
}
