/** `minigpt4 train`: trains the part between a frozen image encoder and a frozen language model. */
import { type Command, Option } from "commander";
import { devices } from "../runtime/environment.ts";
import { type DryRun, dryRun } from "../training/dry-run.ts";
import { type RunOptions, runRecipe } from "../training/run.ts";
import { oneLine } from "./describe.ts";
import { Interrupted, openRecipe, settingsOption, untilInterrupted } from "./options.ts";
import { countDisplay } from "./progress.ts";
import { formatBytes, formatCount, formatDuration, printable } from "./text.ts";

interface TrainFlags {
  readonly set: readonly string[];
  readonly resume?: boolean;
  readonly overwrite?: boolean;
  readonly dryRun?: boolean;
  readonly json?: boolean;
  readonly device: NonNullable<RunOptions["device"]>;
}

export function registerTrain(program: Command): void {
  program
    .command("train")
    .summary("train the part between image encoder and language model")
    .description(
      "Trains what a recipe says, on the images it names, and writes a model folder that describe and chat take with --model. " +
        "Ctrl-C saves the state; --resume goes on from there, as it does after a crash.",
    )
    .argument("<recipe>", "a YAML file, for example recipes/nano.yaml; recipes of the original project are understood")
    .addOption(settingsOption())
    .option("--resume", "go on from the newest checkpoint in the recipe's output folder")
    .option("--overwrite", "begin anew where the output folder holds a run")
    .addOption(
      new Option("--dry-run", "say what would be trained, on what, and how long it would take").conflicts([
        "resume",
        "overwrite",
      ]),
    )
    .option("--json", "print the dry run as JSON")
    .addOption(new Option("--device <device>", "where to compute").choices(devices).default("auto"))
    .addHelpText(
      "after",
      `
Examples:
  minigpt4 train recipes/nano.yaml --set datasets.flickr8k.path=/data/flickr8k
  minigpt4 train recipes/stage2.yaml --set run.init_lr=3e-5 --dry-run
  minigpt4 train recipes/nano-qformer.yaml --set model.bert_ckpt=/data/all-MiniLM-L6-v2
  minigpt4 train recipes/nano.yaml --resume`,
    )
    .action(trainRecipe);
}

async function trainRecipe(
  path: string,
  { set, resume, overwrite, json, device, ...flags }: TrainFlags,
): Promise<void> {
  const recipe = await openRecipe(path, set);
  if (flags.dryRun) {
    const plan = await dryRun(recipe, { device });
    console.log(json ? JSON.stringify(plan) : describePlan(plan));
    return;
  }
  const signal = untilInterrupted();
  const display = stepDisplay();
  try {
    const folder = await runRecipe(recipe, {
      device,
      signal,
      ...(resume && { resume }),
      ...(overwrite && { overwrite }),
      ...display.events,
    }).catch((error: unknown) => {
      if (error instanceof Interrupted) return recipe.run.output_dir;
      throw error;
    });
    signal.throwIfAborted();
    display.stop();
    console.log(folder);
  } catch (error) {
    display.stop();
    if (error instanceof Interrupted) {
      process.stderr.write(`Stopped; the state is saved in ${recipe.run.output_dir}. Go on with --resume.\n`);
    }
    throw error;
  }
}

/** A bar for the steps of each stage, and lines for what happens beside them. */
function stepDisplay() {
  let stage = "";
  let display = countDisplay(stage);
  let loss = 0;
  let tokens = 0;
  let seconds = 0;
  let waiting = 0;
  const say = (text: string) => display.say(text);
  const events: Required<Pick<RunOptions, "onStep" | "onValidation" | "onSamples" | "onMessage">> = {
    onStep(name, report) {
      if (name !== stage) {
        display.stop();
        stage = name;
        display = countDisplay(`${name}: step`);
        [loss, tokens, seconds, waiting] = [report.loss, 0, 0, 0];
      }
      loss = loss * 0.97 + report.loss * 0.03;
      tokens += report.tokens;
      seconds += report.seconds;
      waiting += report.dataSeconds;
      const notes = [
        `loss ${loss.toFixed(3)}${partsOf(report.terms)}`,
        `lr ${report.learningRate.toExponential(1)}`,
        `${Math.round(tokens / seconds)} tokens/s`,
        `${((100 * waiting) / seconds).toFixed(0)}% waiting for data`,
      ];
      display.update(report.step, report.totalSteps, notes.join("  "));
    },
    onValidation: (step, held, isBest) =>
      say(`step ${step}: held-out loss ${held.toFixed(3)}${isBest ? ", the best" : ""}`),
    onSamples: (_, samples) =>
      say(samples.map(({ image, text }) => `  ${printable(image)}: ${oneLine(text)}`).join("\n")),
    onMessage: say,
  };
  return { events, stop: () => display.stop() };
}

/** " (itc 3.912 itm 0.637 itg 5.301)" where a loss has parts. */
function partsOf(terms: Readonly<Record<string, number>>): string {
  const parts = Object.entries(terms).map(([name, value]) => `${name} ${value.toFixed(3)}`);
  return parts.length > 0 ? ` (${parts.join(" ")})` : "";
}

function describePlan(plan: DryRun): string {
  const parts = plan.parts.map(
    ({ name, trained, origin }) => `  ${name.padEnd(15)} ${trained ? "trained" : "frozen "}  ${origin}`,
  );
  const datasets = plan.datasets.map((set) => {
    const about = set.isEstimate ? "about " : "";
    const broken = set.broken > 0 ? `, ${set.broken} broken` : "";
    return (
      `  ${set.name.padEnd(15)} ${about}${formatCount(set.images)} images, ${formatCount(set.texts)} texts of ` +
      `${set.tokensPerText.toFixed(1)} tokens, ${formatBytes(set.bytes)}${broken}  (${set.layout}, ${set.path})`
    );
  });
  const cache =
    plan.cacheBytes === undefined
      ? "none: features are computed in each step"
      : `${formatBytes(plan.cacheBytes)} when all images are in it; ${formatCount(plan.cachedRows)} rows are there`;
  return [
    "Parts",
    ...parts,
    "",
    "Data",
    ...datasets,
    `  watched         ${formatCount(plan.watched)} images, not trained on`,
    "",
    "Run",
    `  parameters      ${formatCount(plan.trainedParameters)} trained`,
    `  steps           ${formatCount(plan.steps)} of ${formatCount(plan.imagesPerStep)} images`,
    `  padding         ${(100 * plan.padding).toFixed(0)}% of the places`,
    `  feature cache   ${cache}`,
    `  time            ${plan.secondsPerStep.toFixed(2)} s a step, measured on three; ${formatDuration(plan.seconds)} for all of them`,
  ].join("\n");
}
