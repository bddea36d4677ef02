/** `minigpt4 doctor`: checks a model folder, and explains how to repair it. */
import { existsSync } from "node:fs";
import { type Command, Option } from "commander";
import type { Check, Finding } from "../evaluation/doctor/checks.ts";
import type { Diagnosis } from "../evaluation/doctor/doctor.ts";
import { printable } from "../files/errors.ts";
import type { CommandContext } from "./context.ts";
import { withDeprecatedValues } from "./options.ts";
import { ProgressDisplay } from "./progress.ts";

interface DoctorFlags {
  readonly skip?: readonly Check[];
  readonly json?: boolean;
}

/** The checks in their order, with what the progress display shows. */
const labels: Readonly<Record<Check, string>> = {
  config: "Reading the config",
  files: "Comparing files",
  dimensions: "Comparing dimensions",
  values: "Reading weights",
  delta: "Reading weights",
  tokenizer: "Checking the tokenizer",
  language: "Measuring perplexity, layer",
  images: "Encoding images",
};

export function defineDoctor(command: Command, context: CommandContext): void {
  command
    .description(
      "Check a model folder for damaged or missing files, dimensions that do not match, a delta that was not applied to its " +
        "base, a tokenizer of another model, and a language model with a high perplexity on plain English; and print what to " +
        "do about each. The language model is read layer by layer, so it does not have to fit into memory. The exit code is 1 " +
        "if a fault was found.",
    )
    .argument("<folder>", "a model folder, or the name of a bundled or pulled model")
    .addOption(
      withDeprecatedValues(
        new Option("--skip <checks...>", "checks to skip (default: none)").choices(
          Object.keys(labels).filter((check) => check !== "config"),
        ),
        context,
        { pictures: "images" },
      ),
    )
    .option("--json", 'print one JSON object: {"path", "healthy", "checked", "findings", "perplexity"}')
    .addHelpText(
      "after",
      "\nExamples:\n  minigpt4 doctor minigpt4-7b\n  minigpt4 doctor minigpt4-7b --skip language images",
    )
    .action((folder, flags) => doctor(context, folder, flags));
}

async function doctor(context: CommandContext, folder: string, { skip, json }: DoctorFlags): Promise<void> {
  const [{ diagnose }, { modelPath }] = await Promise.all([
    import("../evaluation/doctor/doctor.ts"),
    import("../chat/models.ts"),
  ]);
  const display = new ProgressDisplay(context);
  try {
    // A folder that does not exist is a finding, too.
    const path = /^[\w.-]+$/.test(folder) && !existsSync(folder) ? modelPath(folder) : folder;
    const diagnosis = await diagnose(path, {
      skip,
      signal: context.untilInterrupted(),
      onProgress: (check, done, total) =>
        display.task(labels[check], check === "language" ? "items" : "bytes")(done, total),
      pull: { onProgress: display.download },
    });
    display.stop();
    context.print(json ? JSON.stringify(diagnosis, null, 2) : toText(diagnosis));
    if (!diagnosis.healthy) context.fail();
  } finally {
    display.stop();
  }
}

function toText({ path, healthy, checked, findings, perplexity }: Diagnosis): string {
  const lines = findings.flatMap(({ kind, what, remedy }: Finding) => [
    `${kind}: ${what.split("\n").map(printable).join("\n  ")}`,
    ...(remedy ? [`  ${printable(remedy)}`] : []),
  ]);
  const english = perplexity === undefined ? "" : `; perplexity on plain English: ${perplexity.toFixed(1)}`;
  const faults = findings.filter(({ kind }) => kind === "fault").length;
  const summary = healthy ? "no faults found" : `${faults} fault${faults === 1 ? "" : "s"} found`;
  return [...lines, `${path}: ${summary} (checked ${checked.join(", ")}${english})`].join("\n");
}
