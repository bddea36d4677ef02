/** `minigpt4 evaluate`: what a model is worth, in numbers. */
import type { Command } from "commander";
import { modelPath } from "../chat/minigpt4.ts";
import { type ImageTextPair, listPairs } from "../data/dataset.ts";
import { openCaptioned } from "../data/open-dataset.ts";
import { holdOut } from "../data/split.ts";
import { evaluateLikelihood } from "../evaluation/evaluate-likelihood.ts";
import type { LikelihoodReport } from "../evaluation/likelihood.ts";
import { evaluateRetrieval, type RetrievalOptions, type RetrievalReport } from "../evaluation/retrieval.ts";
import { type ModelFolder, openModelFolder } from "../models/model-folder.ts";
import { countDisplay } from "./count-display.ts";
import { untilInterrupted } from "./interrupt.ts";
import { addModelOptions, integerBetween, type ModelFlags } from "./options.ts";
import { downloadDisplay } from "./progress.ts";

interface EvaluateFlags extends ModelFlags {
  readonly limit?: number;
  readonly captions?: number;
  readonly json?: boolean;
}

export function registerEvaluate(program: Command): void {
  const evaluate = program.command("evaluate").summary("measure a model").description("Measures a model.");
  const ofLikelihood = evaluate
    .command("likelihood")
    .summary("how well captions tell pictures apart")
    .description(
      "For each caption, the loss given its own picture and given every other one. A model that looks finds the own picture likeliest.",
    );
  addOptions(ofLikelihood, "likelihood").action(likelihood);
  const ofRetrieval = evaluate
    .command("retrieval")
    .summary("how well embeddings find a caption's picture, and a picture's caption")
    .description(
      "Embeds all pictures and captions. For each caption, where its own picture stands among all; for each picture, where the best of its captions does.",
    );
  addOptions(ofRetrieval, "retrieval").action(retrieval);
}

function addOptions(command: Command, name: string): Command {
  return addModelOptions(command)
    .argument("<folder>", "as Flickr8k has it: Images/ and captions.txt (image,caption); or a CSV file beside Images/")
    .option("--limit <n>", "only the last n pictures by name (recipes hold these out)", integerBetween(2, 1_000_000))
    .option("--captions <n>", "only the first n captions of each picture", integerBetween(1, 1000))
    .option("--json", "print the numbers as JSON")
    .addHelpText("after", `\nExample:\n  minigpt4 evaluate ${name} /data/flickr8k --limit 100`);
}

async function likelihood(folder: string, flags: EvaluateFlags): Promise<void> {
  await evaluate(folder, flags, "captions", async (model, pairs, options) => {
    const report = await evaluateLikelihood(model, pairs, { ...options, precision: flags.precision });
    return { report, text: likelihoodTable(report) };
  });
}

async function retrieval(folder: string, flags: EvaluateFlags): Promise<void> {
  await evaluate(folder, flags, "pictures", async (model, pairs, options) => {
    const report = await evaluateRetrieval(model, pairs, options);
    return { report, text: retrievalTable(report) };
  });
}

/** Opens pictures and model, measures, and prints the report. @param counted what the progress counts */
async function evaluate(
  folder: string,
  flags: EvaluateFlags,
  counted: string,
  measure: (
    model: ModelFolder,
    pairs: readonly ImageTextPair[],
    options: RetrievalOptions,
  ) => Promise<{ readonly report: object; readonly text: string }>,
): Promise<void> {
  const signal = untilInterrupted();
  const dataset = await openCaptioned(folder);
  const pairs = flags.limit ? (await holdOut(dataset, flags.limit)).heldOut : await listPairs(dataset);
  const download = downloadDisplay();
  const model = await openModelFolder(modelPath(flags.model), { onProgress: download.onProgress, signal });
  download.stop();
  const display = countDisplay(counted);
  try {
    const { report, text } = await measure(model, pairs, {
      device: flags.device,
      signal,
      onProgress: (done, total) => display.update(done, total),
      ...(flags.captions && { captionsPerPicture: flags.captions }),
    });
    display.stop();
    console.log(flags.json ? JSON.stringify(report) : text);
  } finally {
    display.stop();
    await model.close();
  }
}

const percent = (share: number) => `${(100 * share).toFixed(1)}%`;

function retrievalTable({ pictures, captions, picturesByCaption, captionsByPicture }: RetrievalReport): string {
  const cells = (ranks: typeof picturesByCaption) =>
    [percent(ranks.first), percent(ranks.firstFive), percent(ranks.firstTen), `${ranks.medianRank}`]
      .map((cell) => cell.padStart(8))
      .join("");
  return [
    `pictures, captions        ${pictures}, ${captions}`,
    `                             first among 5      10  median rank`,
    `picture of a caption     ${cells(picturesByCaption)} of ${pictures}`,
    `caption of a picture     ${cells(captionsByPicture)} of ${captions}`,
  ].join("\n");
}

function likelihoodTable(report: LikelihoodReport): string {
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
