/** `minigpt4 curate export`: writes the data set that the second stage trains on. */
import type { Command } from "commander";
import { type ExportOptions, type ExportReport, exportPairs } from "../../curation/export.ts";
import { CurationStore } from "../../curation/store.ts";
import { type ProjectFlags, projectOption, untilInterrupted } from "../options.ts";
import { countDisplay } from "../progress.ts";
import { formatCount, printable } from "../text.ts";

interface ExportFlags extends ProjectFlags {
  readonly unreviewed?: boolean;
  readonly overwrite?: boolean;
  readonly json?: boolean;
}

export function registerExport(curate: Command): void {
  curate
    .command("export")
    .summary("write what was kept as a data set for the second stage")
    .description(
      "Writes the pairs that a person has kept as a folder that training reads (cc_sbu_align), here and in the Python original: filter_cap.json, image/ID.jpg, " +
        "and provenance.jsonl, which says where each pair comes from. Images that are no upright JPEGs become ones. An image that is gone or has changed " +
        "since it was described is reported and left out.",
    )
    .argument("<folder>", "where to write; should not be there yet")
    .addOption(projectOption())
    .option("--unreviewed", "also pairs that nobody has reviewed and no rule drops")
    .option("--overwrite", "replace the data set that is in the folder")
    .option("--json", "print one JSON object")
    .addHelpText(
      "after",
      `
Examples:
  minigpt4 curate export cc_sbu_align
  minigpt4 curate export cc_sbu_align --unreviewed --overwrite
  minigpt4 train recipes/stage2.yaml --set datasets.cc_sbu_align.path=cc_sbu_align`,
    )
    .action(exportDataset);
}

async function exportDataset(folder: string, { project, json, ...options }: ExportFlags): Promise<void> {
  const signal = untilInterrupted();
  const store = CurationStore.open(project);
  try {
    const report = await exportProject(store, folder, { ...options, signal });
    console.log(json ? JSON.stringify(report, null, 2) : exportText(report));
  } finally {
    store.close();
  }
}

/** Exports, shows how far it is, and tells what was refused. @throws as `exportPairs` */
export async function exportProject(
  store: CurationStore,
  folder: string,
  options: ExportOptions,
): Promise<ExportReport> {
  const display = countDisplay("exported");
  try {
    const report = await exportPairs(store, folder, { ...options, onProgress: display.update });
    display.stop();
    for (const { name, reason } of report.refused) console.error(`error: ${printable(name)}: ${printable(reason)}`);
    if (report.refused.length > 0) process.exitCode = 1;
    return report;
  } finally {
    display.stop();
  }
}

/** What was written, for people. */
export function exportText({ folder, pairs, copied, converted, refused, left }: ExportReport): string {
  const { open = 0, dropped = 0, empty = 0 } = left;
  return [
    `${formatCount(pairs)} pairs in ${printable(folder)}: ${formatCount(copied)} images copied, ${formatCount(converted)} made upright JPEGs, ${formatCount(refused.length)} refused`,
    `left out: ${formatCount(open)} not reviewed, ${formatCount(dropped)} dropped, ${formatCount(empty)} without text`,
  ].join("\n");
}
