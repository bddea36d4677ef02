/** `minigpt4 evaluate`: what a model is worth, in numbers. */
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import type { Command } from "commander";
import { modelPath } from "../chat/minigpt4.ts";
import { type ImageTextPair, listPairs, splitValidation } from "../data/dataset.ts";
import { openCaptioned } from "../data/formats/open.ts";
import { evaluateLikelihood, type LikelihoodReport } from "../evaluation/likelihood.ts";
import { perplexity } from "../evaluation/perplexity.ts";
import {
  evaluateRetrieval,
  type RankMetrics,
  type RecallMetrics,
  type RetrievalMetrics,
  type RetrievalReport,
} from "../evaluation/retrieval.ts";
import { type PullOptions, pull } from "../hub/pull.ts";
import { openLlama } from "../models/llama-folder.ts";
import { openModelFolder } from "../models/model-folder.ts";
import { openRetrievalModel } from "../retrieval/open-retrieval-model.ts";
import { addModelOptions, integerBetween, type ModelFlags, untilInterrupted } from "./options.ts";
import { type CountDisplay, countDisplay, downloadDisplay } from "./progress.ts";

interface PerplexityFlags extends ModelFlags {
  readonly llm?: string;
  readonly window: number;
  readonly json?: boolean;
}

interface EvaluateFlags extends ModelFlags {
  readonly limit?: number;
  readonly captions?: number;
  readonly rerank?: number;
  readonly generation?: boolean;
  readonly json?: boolean;
}

export function registerEvaluate(program: Command): void {
  const evaluate = program.command("evaluate").summary("measure a model").description("Measures a model.");
  const ofLikelihood = evaluate
    .command("likelihood")
    .summary("how well captions tell images apart")
    .description(
      "For each caption, the loss given its own image and given every other one. A model that looks finds the own image likeliest.",
    );
  addOptions(ofLikelihood, "likelihood").action(likelihood);
  const ofRetrieval = evaluate
    .command("retrieval")
    .summary("how well embeddings find a caption's image, and an image's caption")
    .description(
      "Embeds all images and captions. For each caption, where its own image stands among all; for each image, where the best of its captions does. " +
        "The model is one with a contrastive head, as nano, or a Q-Former as BLIP-2 pre-trains it, whose matching head ranks the nearest once more.",
    );
  addOptions(ofRetrieval, "retrieval")
    .option(
      "--rerank <k>",
      "with a Q-Former, rank the k nearest once more by its matching head; 0 for none",
      integerBetween(0, 10_000),
      16,
    )
    .option("--generation", "with a Q-Former, rank also by how likely it is to generate a caption from an image (slow)")
    .action(retrieval);
  registerPerplexity(evaluate);
}

function registerPerplexity(evaluate: Command): void {
  addModelOptions(
    evaluate
      .command("perplexity")
      .summary("how surprised the language model is by a text")
      .description(
        "The perplexity of a text under a model's language model, or under one by itself: what a precision costs shows here first.",
      ),
  )
    .argument("<file>", "plain text")
    .option("--llm <path>", "a language model by itself: a known name, a GGUF file or a folder; instead of --model")
    .option("--window <n>", "tokens that are read together", integerBetween(2, 100_000), 512)
    .option("--json", 'print {"tokens", "loss", "perplexity"}')
    .addHelpText(
      "after",
      `
Examples:
  minigpt4 evaluate perplexity book.txt --precision int4
  minigpt4 evaluate perplexity book.txt --llm smollm2-135m-instruct --precision int4-128`,
    )
    .action(ofText);
}

async function ofText(file: string, flags: PerplexityFlags): Promise<void> {
  const signal = untilInterrupted();
  const text = await readFile(file, "utf8");
  const { llm, precision, close } = await opened(signal, (pull) => openLanguageModel(flags, pull));
  const display = countDisplay("windows");
  try {
    const report = await perplexity(llm, text, {
      device: flags.device,
      precision: flags.precision ?? precision,
      window: flags.window,
      signal,
      onProgress: (done, total) => display.update(done, total),
    });
    display.stop();
    const { tokens, loss } = report;
    const table = `tokens       ${tokens}\nloss         ${loss.toFixed(4)}\nperplexity   ${report.perplexity.toFixed(3)}`;
    console.log(flags.json ? JSON.stringify(report) : table);
  } finally {
    display.stop();
    await close();
  }
}

/** The language model of a model folder, or one by itself. */
async function openLanguageModel({ llm: path, model }: PerplexityFlags, options: PullOptions) {
  if (path === undefined) {
    const folder = await openModelFolder(modelPath(model), options);
    return { llm: folder.llm, precision: folder.precision, close: () => folder.close() };
  }
  const llm = await openLlama(existsSync(path) ? path : await pull(path, options));
  return { llm, precision: undefined, close: () => llm.checkpoint.close() };
}

function addOptions(command: Command, name: string): Command {
  return addModelOptions(command)
    .argument("<folder>", "as Flickr8k has it: Images/ and captions.txt (image,caption); or a CSV file beside Images/")
    .option("--limit <n>", "only the last n images by name (recipes hold these out)", integerBetween(2, 1_000_000))
    .option("--captions <n>", "only the first n captions of each image", integerBetween(1, 1000))
    .option("--json", "print the numbers as JSON")
    .addHelpText("after", `\nExample:\n  minigpt4 evaluate ${name} /data/flickr8k --limit 100`);
}

async function likelihood(folder: string, flags: EvaluateFlags): Promise<void> {
  await evaluate(folder, flags, async (pairs, options) => {
    const model = await opened(options.signal, (pull) => openModelFolder(modelPath(flags.model), pull));
    const display = countDisplay("captions");
    const onProgress = (done: number, total: number) => display.update(done, total);
    try {
      const report = await evaluateLikelihood(model, pairs, { ...options, precision: flags.precision, onProgress });
      return { report, text: likelihoodTable(report) };
    } finally {
      display.stop();
      await model.close();
    }
  });
}

async function retrieval(folder: string, flags: EvaluateFlags): Promise<void> {
  await evaluate(folder, flags, async (pairs, options) => {
    const finder = await opened(options.signal, (pull) =>
      openRetrievalModel(flags.model, { device: flags.device, pull }),
    );
    let display: { readonly what: string; readonly counts: CountDisplay } | undefined;
    const onProgress = (what: string, done: number, total: number) => {
      if (display?.what !== what) {
        display?.counts.stop();
        display = { what, counts: countDisplay(what) };
      }
      display.counts.update(done, total);
    };
    try {
      const { rerank = 0, generation = false } = flags;
      const report = await evaluateRetrieval(finder, pairs, { ...options, rerank, generation, onProgress });
      return { report, text: retrievalTable(report) };
    } finally {
      display?.counts.stop();
      await finder.close();
    }
  });
}

interface MeasureOptions extends Pick<EvaluateFlags, "device"> {
  readonly signal: AbortSignal;
  readonly captionsPerImage?: number;
}

/** Opens a model; what has to be fetched for it is shown. */
async function opened<T>(signal: AbortSignal, open: (options: PullOptions) => Promise<T>): Promise<T> {
  const { onProgress, stop } = downloadDisplay();
  try {
    return await open({ onProgress, signal });
  } finally {
    stop();
  }
}

/** Lists the images, measures, and prints the report. */
async function evaluate(
  folder: string,
  flags: EvaluateFlags,
  measure: (
    pairs: readonly ImageTextPair[],
    options: MeasureOptions,
  ) => Promise<{ readonly report: object; readonly text: string }>,
): Promise<void> {
  const signal = untilInterrupted();
  const dataset = await openCaptioned(folder);
  const pairs = flags.limit ? (await splitValidation(dataset, flags.limit)).validation : await listPairs(dataset);
  const { report, text } = await measure(pairs, {
    device: flags.device,
    signal,
    ...(flags.captions && { captionsPerImage: flags.captions }),
  });
  console.log(flags.json ? JSON.stringify(report) : text);
}

const percent = (share: number) => `${(100 * share).toFixed(1)}%`;

function retrievalTable({ images, captions, chance, reranked, generated, ...nearest }: RetrievalReport): string {
  const again = reranked ? `the ${reranked.candidates} nearest matched` : "";
  const rows = (what: keyof RetrievalMetrics, title: string, of: number) => [
    rankRow(title, nearest[what], of),
    ...(reranked ? [rankRow(`  ${again}`, reranked[what], of)] : []),
    ...(generated ? [rankRow("  likeliest generated", generated[what], of)] : []),
    shareRow("  by chance", chance[what]),
  ];
  return [
    `images, captions        ${images}, ${captions}`,
    `                             first among 5      10  median rank`,
    ...rows("textToImage", "image of a caption", images),
    ...rows("imageToText", "caption of an image", captions),
  ].join("\n");
}

function rankRow(title: string, ranks: RankMetrics, of: number): string {
  return `${shareRow(title, ranks)}${`${ranks.medianRank}`.padStart(8)} of ${of}`;
}

function shareRow(title: string, { recallAt1, recallAt5, recallAt10 }: RecallMetrics): string {
  return title.padEnd(25) + [recallAt1, recallAt5, recallAt10].map((share) => percent(share).padStart(8)).join("");
}

function likelihoodTable(report: LikelihoodReport): string {
  return [
    `images, captions        ${report.images}, ${report.captions}`,
    `loss, right image       ${report.matchedLoss.toFixed(3)}`,
    `  without the end symbol  ${report.matchedLossWithoutEos.toFixed(3)}`,
    `loss, wrong image       ${report.mismatchedLoss.toFixed(3)}`,
    `median rank               ${report.medianRank} of ${report.images}`,
    `own image first         ${percent(report.recallAt1)}`,
    `among the first 5         ${percent(report.recallAt5)}`,
    `among the first 10        ${percent(report.recallAt10)}`,
  ].join("\n");
}
