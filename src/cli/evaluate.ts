/** `minigpt4 evaluate`: measures a model. */
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import type { Command } from "commander";
import type { ImageTextPair } from "../data/dataset.ts";
import type { LikelihoodReport } from "../evaluation/likelihood.ts";
import type { RankMetrics, RecallMetrics, RetrievalMetrics, RetrievalReport } from "../evaluation/retrieval.ts";
import type { PullOptions } from "../hub/pull.ts";
import type { CommandContext } from "./context.ts";
import { addCommands } from "./lazy-commands.ts";
import { addModelOptions, integerBetween, type ModelFlags, quantizationFlag } from "./options.ts";
import { ProgressDisplay } from "./progress.ts";

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

export function defineEvaluate(command: Command, context: CommandContext): void {
  command.description("Measure a model on images with captions, or its language model on a text.");
  addCommands(command, context, [
    { name: "likelihood", summary: "rank images by the loss of a caption", load: async () => defineLikelihood },
    {
      name: "retrieval",
      summary: "rank images for a caption, and captions for an image, by their embeddings",
      load: async () => defineRetrieval,
    },
    { name: "perplexity", summary: "perplexity of a text", load: async () => definePerplexity },
  ]);
}

function defineLikelihood(command: Command, context: CommandContext): void {
  command.description(
    "Compute the loss of each caption given its own image and given every other image. A model that uses the image gives " +
      "its own image the lowest loss.",
  );
  addPairOptions(command, context).action((folder, flags) => evaluateLikelihoods(context, folder, flags));
}

function defineRetrieval(command: Command, context: CommandContext): void {
  command.description(
    "Embed all images and captions. For each caption, rank its image among all images; for each image, rank the best of its " +
      "captions. The model needs a contrastive head, as nano has, or is a pre-trained BLIP-2 Q-Former, whose matching head " +
      "ranks the nearest again.",
  );
  addPairOptions(command, context)
    .option(
      "--rerank <k>",
      "with a Q-Former, rank the k nearest again by its matching head; 0 turns it off",
      integerBetween(0, 10_000),
      16,
    )
    .option("--generation", "with a Q-Former, also rank by the likelihood of generating the caption (slow)")
    .action((folder, flags) => evaluateRetrievals(context, folder, flags));
}

function definePerplexity(command: Command, context: CommandContext): void {
  command.description(
    "Compute the perplexity of a text under a model's language model, or under a language model by itself. Use it to see " +
      "what a quantization costs.",
  );
  addModelOptions(command, context)
    .argument("<file>", "a plain text file")
    .option(
      "--llm <path>",
      "a language model by itself: a known name, a GGUF file or a folder (default: that of --model)",
    )
    .option("--window <n>", "context length in tokens", integerBetween(2, 100_000), 512)
    .option("--json", 'print one JSON object: {"tokens", "loss", "perplexity"}')
    .addHelpText(
      "after",
      `
Examples:
  minigpt4 evaluate perplexity book.txt --quantization int4
  minigpt4 evaluate perplexity book.txt --llm smollm2-135m-instruct --quantization int4 --block-size 128`,
    )
    .action((file, flags) => evaluatePerplexity(context, file, flags));
}

/** The arguments and options of evaluations on images with captions. */
function addPairOptions(command: Command, context: CommandContext): Command {
  return addModelOptions(command, context)
    .argument("<folder>", "a dataset with captions, for example Flickr8k (Images/ and captions.txt) or a CSV file")
    .option(
      "--limit <n>",
      "only the last n images by name, which recipes use for validation (default: all)",
      integerBetween(2, 1_000_000),
    )
    .option("--captions <n>", "only the first n captions of each image (default: all)", integerBetween(1, 1000))
    .option("--json", "print the report as one JSON object")
    .addHelpText("after", `\nExample:\n  minigpt4 evaluate ${command.name()} /data/flickr8k --limit 100`);
}

async function evaluatePerplexity(context: CommandContext, file: string, flags: PerplexityFlags): Promise<void> {
  const { perplexity } = await import("../evaluation/perplexity.ts");
  const signal = context.untilInterrupted();
  const text = await readFile(file, "utf8");
  const display = new ProgressDisplay(context);
  const { llm, quantization, close } = await openLanguageModel(flags, { onProgress: display.download, signal });
  try {
    const report = await perplexity(llm, text, {
      device: flags.device,
      quantization: quantizationFlag(flags) ?? quantization,
      window: flags.window,
      signal,
      onProgress: display.task("windows"),
    });
    display.stop();
    const { tokens, loss } = report;
    const table = `tokens       ${tokens}\nloss         ${loss.toFixed(4)}\nperplexity   ${report.perplexity.toFixed(3)}`;
    context.print(flags.json ? JSON.stringify(report) : table);
  } finally {
    display.stop();
    await close();
  }
}

/** Opens the language model of a model folder, or one by itself. */
async function openLanguageModel({ llm: path, model }: PerplexityFlags, options: PullOptions) {
  if (path === undefined) {
    const folder = await openModel(model, options);
    return { llm: folder.llm, quantization: folder.quantization, close: () => folder.close() };
  }
  const [{ pull }, { openLlama }] = await Promise.all([import("../hub/pull.ts"), import("../models/llama-folder.ts")]);
  const llm = await openLlama(existsSync(path) ? path : await pull(path, options));
  return { llm, quantization: undefined, close: () => llm.checkpoint.close() };
}

async function openModel(model: string, options: PullOptions) {
  const [{ modelPath }, { openModelFolder }] = await Promise.all([
    import("../chat/models.ts"),
    import("../models/model-folder.ts"),
  ]);
  return openModelFolder(modelPath(model), options);
}

async function evaluateLikelihoods(context: CommandContext, folder: string, flags: EvaluateFlags): Promise<void> {
  const { evaluateLikelihood } = await import("../evaluation/likelihood.ts");
  const { device, captions: captionsPerImage, json } = flags;
  const quantization = quantizationFlag(flags);
  const signal = context.untilInterrupted();
  const pairs = await openPairs(folder, flags.limit);
  const display = new ProgressDisplay(context);
  const model = await openModel(flags.model, { onProgress: display.download, signal });
  try {
    const onProgress = display.task("captions");
    const report = await evaluateLikelihood(model, pairs, {
      device,
      quantization,
      captionsPerImage,
      signal,
      onProgress,
    });
    display.stop();
    context.print(json ? JSON.stringify(report) : likelihoodTable(report));
  } finally {
    display.stop();
    await model.close();
  }
}

async function evaluateRetrievals(context: CommandContext, folder: string, flags: EvaluateFlags): Promise<void> {
  const [{ evaluateRetrieval }, { openRetrievalModel }] = await Promise.all([
    import("../evaluation/retrieval.ts"),
    import("../retrieval/open-retrieval-model.ts"),
  ]);
  const { device, captions: captionsPerImage, rerank = 0, generation = false, json } = flags;
  const signal = context.untilInterrupted();
  const pairs = await openPairs(folder, flags.limit);
  const display = new ProgressDisplay(context);
  const retrievalModel = await openRetrievalModel(flags.model, {
    device,
    pull: { onProgress: display.download, signal },
  });
  try {
    const report = await evaluateRetrieval(retrievalModel, pairs, {
      device,
      captionsPerImage,
      signal,
      rerank,
      generation,
      onProgress: (task, done, total) => display.task(task)(done, total),
    });
    display.stop();
    context.print(json ? JSON.stringify(report) : retrievalTable(report));
  } finally {
    display.stop();
    await retrievalModel.close();
  }
}

/** The images of a dataset with their captions, or those that recipes hold out. */
async function openPairs(folder: string, limit: number | undefined): Promise<readonly ImageTextPair[]> {
  const [{ openCaptioned }, { listPairs, splitValidation }] = await Promise.all([
    import("../data/formats/open.ts"),
    import("../data/dataset.ts"),
  ]);
  const dataset = await openCaptioned(folder);
  return limit === undefined ? listPairs(dataset) : (await splitValidation(dataset, limit)).validation;
}

function retrievalTable({ images, captions, chance, reranked, generated, ...nearest }: RetrievalReport): string {
  const rows = (what: keyof RetrievalMetrics, title: string, candidates: number) => [
    rankRow(title, nearest[what], candidates),
    ...(reranked ? [rankRow(`  ${reranked.candidates} nearest reranked`, reranked[what], candidates)] : []),
    ...(generated ? [rankRow("  by generation", generated[what], candidates)] : []),
    recallRow("  by chance", chance[what]),
  ];
  return [
    row("images, captions", `${images}, ${captions}`),
    row("", `${"R@1".padStart(8)}${"R@5".padStart(8)}${"R@10".padStart(8)}  median rank`),
    ...rows("textToImage", "image of a caption", images),
    ...rows("imageToText", "caption of an image", captions),
  ].join("\n");
}

function rankRow(title: string, ranks: RankMetrics, candidates: number): string {
  return `${recallRow(title, ranks)}${`${ranks.medianRank}`.padStart(8)} of ${candidates}`;
}

function recallRow(title: string, { recallAt1, recallAt5, recallAt10 }: RecallMetrics): string {
  return row(title, [recallAt1, recallAt5, recallAt10].map((share) => percent(share).padStart(8)).join(""));
}

function likelihoodTable(report: LikelihoodReport): string {
  return [
    row("images, captions", `${report.images}, ${report.captions}`),
    row("loss, own image", report.matchedLoss.toFixed(3)),
    row("  without end token", report.matchedLossWithoutEos.toFixed(3)),
    row("loss, other images", report.mismatchedLoss.toFixed(3)),
    row("median rank", `${report.medianRank} of ${report.images}`),
    row("R@1", percent(report.recallAt1)),
    row("R@5", percent(report.recallAt5)),
    row("R@10", percent(report.recallAt10)),
  ].join("\n");
}

function row(title: string, value: string): string {
  return title.padEnd(25) + value;
}

function percent(share: number): string {
  return `${(100 * share).toFixed(1)}%`;
}
