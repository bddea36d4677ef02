/** `minigpt4 doctor`: what is wrong with a model folder. */
import { existsSync } from "node:fs";
import { type Command, Option } from "commander";
import { modelPath } from "../chat/minigpt4.ts";
import { type Check, checks, type Finding } from "../evaluation/doctor/checks.ts";
import { type Diagnosis, diagnose } from "../evaluation/doctor/doctor.ts";
import { untilInterrupted } from "./options.ts";
import { downloadDisplay, stepDisplay } from "./progress.ts";
import { printable } from "./text.ts";

interface DoctorFlags {
  readonly skip?: readonly Check[];
  readonly json?: boolean;
}

export function registerDoctor(program: Command): void {
  program
    .command("doctor")
    .summary("find out what is wrong with a model folder")
    .description(
      "Looks for what keeps a model folder from working: damaged or missing files, sizes that do not fit each other, a " +
        "difference that was not added to its base, another model's tokenizer, a language model that finds plain English " +
        "surprising. Says what to do about each. The language model is read one layer at a time, so that it need not fit " +
        "into memory. The exit code is 1 if something is wrong.",
    )
    .argument("<folder>", "a model folder, or the name of a model that comes with the package")
    .addOption(
      new Option("--skip <checks...>", "what is left out").choices(checks.filter((check) => check !== "config")),
    )
    .option("--json", 'print {"path", "healthy", "checked", "findings", "perplexity"}')
    .addHelpText(
      "after",
      "\nExamples:\n  minigpt4 doctor minigpt4-7b\n  minigpt4 doctor minigpt4-7b --skip language images",
    )
    .action(doctor);
}

async function doctor(folder: string, { skip, json }: DoctorFlags): Promise<void> {
  const display = stepDisplay();
  const download = downloadDisplay();
  try {
    // A folder that is not there is a finding, too.
    const path = /^[\w.-]+$/.test(folder) && !existsSync(folder) ? modelPath(folder) : folder;
    const onProgress = (check: Check, done: number, total: number) =>
      display.update(steps[check], done, total, check === "language" ? String : undefined);
    const diagnosis = await diagnose(path, {
      skip,
      signal: untilInterrupted(),
      onProgress,
      pull: { onProgress: download.onProgress },
    });
    display.stop();
    console.log(json ? JSON.stringify(diagnosis, null, 2) : toText(diagnosis));
    if (!diagnosis.healthy) process.exitCode = 1;
  } finally {
    download.stop();
    display.stop();
  }
}

const steps: Readonly<Record<Check, string>> = {
  config: "Reading",
  files: "Comparing files",
  dimensions: "Comparing sizes",
  values: "Reading weights",
  delta: "Reading weights",
  tokenizer: "Trying the tokenizer",
  language: "Reading English",
  images: "Looking at images",
};

function toText({ path, healthy, checked, findings, perplexity }: Diagnosis): string {
  const lines = findings.flatMap(({ kind, what, remedy }: Finding) => [
    `${kind}: ${what.split("\n").map(printable).join("\n  ")}`,
    ...(remedy ? [`  ${printable(remedy)}`] : []),
  ]);
  const english = perplexity === undefined ? "" : `; perplexity on plain English ${perplexity.toFixed(1)}`;
  const faults = findings.filter(({ kind }) => kind === "fault").length;
  const sum = healthy ? "nothing is wrong" : `${faults} fault${faults === 1 ? "" : "s"}`;
  return [...lines, `${path}: ${sum} (looked at ${checked.join(", ")}${english})`].join("\n");
}
