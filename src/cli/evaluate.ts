/** `minigpt4 evaluate`: what a model is worth, in numbers. */
import type { Command } from "commander";
import { modelPath } from "../chat/minigpt4.ts";
import { listPairs } from "../data/dataset.ts";
import { openDataset } from "../data/open-dataset.ts";
import { holdOut } from "../data/split.ts";
import { evaluateLikelihood } from "../evaluation/evaluate-likelihood.ts";
import type { LikelihoodReport } from "../evaluation/likelihood.ts";
import { openModelFolder } from "../models/model-folder.ts";
import { countDisplay } from "./count-display.ts";
import { untilInterrupted } from "./interrupt.ts";
import { addModelOptions, integerBetween, type ModelFlags } from "./options.ts";
import { downloadDisplay } from "./progress.ts";

interface LikelihoodFlags extends ModelFlags {
  readonly limit?: number;
  readonly captions?: number;
  readonly json?: boolean;
}

export function registerEvaluate(program: Command): void {
  const command = program
    .command("evaluate")
    .description("Measures a model.")
    .command("likelihood")
    .summary("how well captions tell pictures apart")
    .description(
      "For each caption, the loss given its own picture and given every other one. A model that looks finds the own picture likeliest.",
    )
    .argument("<folder>", "as Flickr8k has it: Images/ and captions.txt (image,caption); or a CSV file beside Images/");
  addModelOptions(command)
    .option("--limit <n>", "only the last n pictures by name (recipes hold these out)", integerBetween(2, 1_000_000))
    .option("--captions <n>", "only the first n captions of each picture", integerBetween(1, 1000))
    .option("--json", "print the numbers as JSON")
    .addHelpText("after", "\nExample:\n  minigpt4 evaluate likelihood /data/flickr8k --limit 100")
    .action(likelihood);
}

async function likelihood(folder: string, flags: LikelihoodFlags): Promise<void> {
  const signal = untilInterrupted();
  const dataset = await openDataset(folder);
  const pairs = flags.limit ? (await holdOut(dataset, flags.limit)).heldOut : await listPairs(dataset);
  const download = downloadDisplay();
  const model = await openModelFolder(modelPath(flags.model), { onProgress: download.onProgress, signal });
  download.stop();
  const display = countDisplay("captions");
  try {
    const report = await evaluateLikelihood(model, pairs, {
      device: flags.device,
      precision: flags.precision,
      signal,
      onProgress: (done, total) => display.update(done, total),
      ...(flags.captions && { captionsPerPicture: flags.captions }),
    });
    display.stop();
    console.log(flags.json ? JSON.stringify(report) : table(report));
  } finally {
    display.stop();
    await model.close();
  }
}

function table(report: LikelihoodReport): string {
  const percent = (share: number) => `${(100 * share).toFixed(1)}%`;
  return [
    `pictures, captions        ${report.pictures}, ${report.captions}`,
    `loss, right picture       ${report.right.toFixed(3)}`,
    `  without the end symbol  ${report.rightWithoutEnd.toFixed(3)}`,
    `loss, wrong picture       ${report.wrong.toFixed(3)}`,
    `median rank               ${report.medianRank} of ${report.pictures}`,
    `own picture first         ${percent(report.first)}`,
    `among the first 5         ${percent(report.firstFive)}`,
    `among the first 10        ${percent(report.firstTen)}`,
  ].join("\n");
}
