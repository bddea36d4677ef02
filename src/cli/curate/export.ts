/** `minigpt4 curate export`: writes the dataset for the second training stage. */
import type { Command } from "commander";
import { type ExportOptions, type ExportReport, exportPairs } from "../../curation/export.ts";
import { CurationStore } from "../../curation/store.ts";
import { printable } from "../../files/errors.ts";
import type { CommandContext } from "../context.ts";
import { type ProjectFlags, projectOption } from "../options.ts";
import { ProgressDisplay } from "../progress.ts";
import { formatCount } from "../text.ts";

interface ExportFlags extends ProjectFlags {
  readonly unreviewed?: boolean;
  readonly overwrite?: boolean;
  readonly json?: boolean;
}

export function defineExport(command: Command, context: CommandContext): void {
  command
    .description(
      "Write the pairs that a reviewer has kept in the format of cc_sbu_align, which this project and the Python original train " +
        "on: filter_cap.json, image/ID.jpg, and provenance.jsonl with the origin of each pair. Images are converted to upright " +
        "JPEGs. Images that are missing or have changed since they were described are reported and skipped.",
    )
    .argument("<folder>", "output folder; must not exist")
    .addOption(projectOption())
    .option("--unreviewed", "also export pairs that no one has reviewed and no rule drops")
    .option("--overwrite", "replace the dataset in the folder")
    .option("--json", "print the report as one JSON object")
    .addHelpText(
      "after",
      `
Examples:
  minigpt4 curate export cc_sbu_align
  minigpt4 curate export cc_sbu_align --unreviewed --overwrite
  minigpt4 train recipes/stage2.yaml --set datasets.cc_sbu_align.path=cc_sbu_align`,
    )
    .action((folder, flags) => exportDataset(context, folder, flags));
}

async function exportDataset(
  context: CommandContext,
  folder: string,
  { project, json, ...options }: ExportFlags,
): Promise<void> {
  const signal = context.untilInterrupted();
  const store = CurationStore.open(project);
  try {
    const report = await exportProject(context, store, folder, { ...options, signal });
    context.print(json ? JSON.stringify(report, null, 2) : exportText(report));
  } finally {
    store.close();
  }
}

/** Exports with a progress display, and reports the images that were refused. @throws as `exportPairs` */
export async function exportProject(
  context: CommandContext,
  store: CurationStore,
  folder: string,
  options: ExportOptions,
): Promise<ExportReport> {
  const display = new ProgressDisplay(context);
  try {
    const report = await exportPairs(store, folder, { ...options, onProgress: display.task("pairs exported") });
    display.stop();
    for (const { name, reason } of report.refused)
      context.printError(`error: ${printable(name)}: ${printable(reason)}`);
    if (report.refused.length > 0) context.fail();
    return report;
  } finally {
    display.stop();
  }
}

/** The report as text. */
export function exportText({ folder, pairs, copied, converted, refused, left }: ExportReport): string {
  const { open = 0, dropped = 0, empty = 0 } = left;
  return [
    `${formatCount(pairs)} pairs in ${printable(folder)}: ${formatCount(copied)} images copied, ${formatCount(converted)} converted, ${formatCount(refused.length)} refused`,
    `skipped: ${formatCount(open)} not reviewed, ${formatCount(dropped)} dropped, ${formatCount(empty)} without text`,
  ].join("\n");
}
