/** `minigpt4 train`: trains the connector between a frozen image encoder and a frozen language model. */
import { type Command, Option } from "commander";
import { printable } from "../files/errors.ts";
import type { DryRun } from "../training/dry-run.ts";
import type { RunOptions } from "../training/run.ts";
import { type CommandContext, Interrupted } from "./context.ts";
import { deviceOption, openRecipe, settingsOption } from "./options.ts";
import { ProgressDisplay, type ReportProgress } from "./progress.ts";
import { formatBytes, formatCount, formatDuration, oneLine } from "./text.ts";

interface TrainFlags {
  readonly set: readonly string[];
  readonly resume?: boolean;
  readonly overwrite?: boolean;
  readonly dryRun?: boolean;
  readonly json?: boolean;
  readonly device: NonNullable<RunOptions["device"]>;
}

export function defineTrain(command: Command, context: CommandContext): void {
  command
    .description(
      "Train a model as a recipe says, and write a model folder for the --model option of other commands. Ctrl-C saves the " +
        "state; --resume continues from there, and after a crash from the newest checkpoint.",
    )
    .argument("<recipe>", "a YAML file, for example recipes/nano.yaml; recipes of the original MiniGPT-4 are supported")
    .addOption(settingsOption())
    .option("--resume", "continue from the newest checkpoint in the recipe's output folder")
    .option("--overwrite", "start again if the output folder already contains a run")
    .addOption(
      new Option("--dry-run", "print what would be trained, on which data, and how long it would take").conflicts([
        "resume",
        "overwrite",
      ]),
    )
    .option("--json", "print the dry run as JSON")
    .addOption(deviceOption())
    .addHelpText(
      "after",
      `
Examples:
  minigpt4 train recipes/nano.yaml --set datasets.flickr8k.path=/data/flickr8k
  minigpt4 train recipes/stage2.yaml --set run.init_lr=3e-5 --dry-run
  minigpt4 train recipes/nano-qformer.yaml --set model.bert_ckpt=/data/all-MiniLM-L6-v2
  minigpt4 train recipes/nano.yaml --resume`,
    )
    .action((path, flags) => trainRecipe(context, path, flags));
}

async function trainRecipe(
  context: CommandContext,
  path: string,
  { set, resume, overwrite, json, device, ...flags }: TrainFlags,
): Promise<void> {
  const recipe = await openRecipe(context, path, set);
  if (flags.dryRun) {
    const { dryRun } = await import("../training/dry-run.ts");
    const plan = await dryRun(recipe, { device });
    context.print(json ? JSON.stringify(plan) : planText(plan));
    return;
  }
  const { runRecipe } = await import("../training/run.ts");
  const signal = context.untilInterrupted();
  const display = new ProgressDisplay(context);
  try {
    const folder = await runRecipe(recipe, { device, signal, resume, overwrite, ...showTraining(display) });
    signal.throwIfAborted();
    display.stop();
    context.print(folder);
  } catch (error) {
    display.stop();
    if (error instanceof Interrupted) {
      context.printError(`Stopped. The state is saved in ${recipe.run.output_dir}; continue with --resume.`);
    }
    throw error;
  }
}

type TrainingEvents = Required<Pick<RunOptions, "onStep" | "onValidation" | "onSamples" | "onMessage">>;

/** Shows the steps of each stage with the smoothed loss and the throughput, and prints what else happens. */
function showTraining(display: ProgressDisplay): TrainingEvents {
  let stage = "";
  let report: ReportProgress = () => {};
  let loss = 0;
  let tokens = 0;
  let seconds = 0;
  let waiting = 0;
  return {
    onStep(name, step) {
      if (name !== stage) {
        stage = name;
        report = display.task(`${name}: step`);
        [loss, tokens, seconds, waiting] = [step.loss, 0, 0, 0];
      }
      loss = loss * 0.97 + step.loss * 0.03;
      tokens += step.tokens;
      seconds += step.seconds;
      waiting += step.dataSeconds;
      const notes = [
        `loss ${loss.toFixed(3)}${formatTerms(step.terms)}`,
        `lr ${step.learningRate.toExponential(1)}`,
        `${Math.round(tokens / seconds)} tokens/s`,
        `${((100 * waiting) / seconds).toFixed(0)}% waiting for data`,
      ];
      report(step.step, step.totalSteps, notes.join("  "));
    },
    onValidation: (step, validation, isBest) =>
      display.message(`step ${step}: validation loss ${validation.toFixed(3)}${isBest ? " (best)" : ""}`),
    onSamples: (_, samples) =>
      display.message(samples.map(({ image, text }) => `  ${printable(image)}: ${oneLine(text)}`).join("\n")),
    onMessage: (message) => display.message(message),
  };
}

/** ` (itc 3.912 itm 0.637 itg 5.301)` if a loss has several terms. */
function formatTerms(terms: Readonly<Record<string, number>>): string {
  const parts = Object.entries(terms).map(([name, value]) => `${name} ${value.toFixed(3)}`);
  return parts.length > 0 ? ` (${parts.join(" ")})` : "";
}

function planText(plan: DryRun): string {
  const parts = plan.parts.map(
    ({ name, trained, origin }) => `  ${name.padEnd(15)} ${trained ? "trained" : "frozen "}  ${origin}`,
  );
  const datasets = plan.datasets.map((set) => {
    const about = set.isEstimate ? "about " : "";
    const broken = set.broken > 0 ? `, ${set.broken} broken` : "";
    return (
      `  ${set.name.padEnd(15)} ${about}${formatCount(set.images)} images, ${formatCount(set.texts)} texts of ` +
      `${set.tokensPerText.toFixed(1)} tokens, ${formatBytes(set.bytes)}${broken}  (${set.format}, ${set.path})`
    );
  });
  const cache =
    plan.cacheBytes === undefined
      ? "none: features are computed in each step"
      : `${formatBytes(plan.cacheBytes)} with all images; ${formatCount(plan.cachedRows)} rows are cached`;
  return [
    "Parts",
    ...parts,
    "",
    "Data",
    ...datasets,
    `  validation      ${formatCount(plan.validation)} images, not trained on`,
    "",
    "Run",
    `  parameters      ${formatCount(plan.trainedParameters)} trained`,
    `  steps           ${formatCount(plan.steps)} of ${formatCount(plan.imagesPerStep)} images`,
    `  padding         ${(100 * plan.padding).toFixed(0)}% of the positions`,
    `  feature cache   ${cache}`,
    `  time            ${plan.secondsPerStep.toFixed(2)} s per step, measured on three; ${formatDuration(plan.seconds)} in total`,
  ].join("\n");
}
