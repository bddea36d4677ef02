/** `minigpt4 train`: trains the part between a frozen image encoder and a frozen language model. */
import { type Command, Option } from "commander";
import { devices } from "../tensor/device.ts";
import { readRecipe } from "../training/recipe.ts";
import { type RunOptions, runRecipe } from "../training/run.ts";
import { countDisplay } from "./count-display.ts";
import { Interrupted, untilInterrupted } from "./interrupt.ts";

interface TrainFlags {
  readonly set: readonly string[];
  readonly resume?: boolean;
  readonly device: NonNullable<RunOptions["device"]>;
}

export function registerTrain(program: Command): void {
  program
    .command("train")
    .summary("train the part between image encoder and language model")
    .description(
      "Trains what a recipe says, on the pictures it names, and writes a model folder that describe and chat take with --model. " +
        "Ctrl-C saves the state; --resume goes on from there.",
    )
    .argument("<recipe>", "a YAML file, for example recipes/nano.yaml")
    .option("--set <key=value>", "replace a value of the recipe; can be given several times", collect, [])
    .option("--resume", "go on from the state in the recipe's output folder")
    .addOption(new Option("--device <device>", "where to compute").choices(devices).default("auto"))
    .addHelpText(
      "after",
      `
Examples:
  minigpt4 train recipes/nano.yaml --set datasets.flickr8k.path=/data/flickr8k
  minigpt4 train recipes/nano.yaml --set run.init_lr=3e-4 --set run.output_dir=runs/second
  minigpt4 train recipes/nano.yaml --resume`,
    )
    .action(trainRecipe);
}

function collect(value: string, before: readonly string[]): readonly string[] {
  return [...before, value];
}

async function trainRecipe(path: string, { set, resume, device }: TrainFlags): Promise<void> {
  const recipe = await readRecipe(path, set);
  const signal = untilInterrupted();
  let stage = "pictures encoded";
  let display = countDisplay(stage);
  let smoothed: number | undefined;
  const show = (name: string, done: number, total: number, note?: string) => {
    if (name !== stage) {
      display.stop();
      stage = name;
      smoothed = undefined;
      display = countDisplay(stage);
    }
    display.update(done, total, note);
  };
  try {
    const folder = await runRecipe(recipe, {
      device,
      signal,
      ...(resume && { resume }),
      onMessage: (message) => process.stderr.write(`${message}\n`),
      onFeatures: (done, total) => show("pictures encoded", done, total),
      onValidation: (step, loss) => process.stderr.write(`step ${step}: held-out loss ${loss.toFixed(3)}\n`),
      onStep(name, { step, totalSteps, loss, learningRate, seconds, dataSeconds }) {
        smoothed = smoothed === undefined ? loss : smoothed * 0.97 + loss * 0.03;
        const waiting = `${((100 * dataSeconds) / seconds).toFixed(0)}% waiting for data`;
        show(
          `${name}: step`,
          step,
          totalSteps,
          `loss ${smoothed.toFixed(3)}  lr ${learningRate.toExponential(1)}  ${waiting}`,
        );
      },
    });
    if (signal.aborted) {
      display.stop();
      process.stderr.write(`Stopped; the state is saved in ${folder}. Go on with --resume.\n`);
      throw new Interrupted("Interrupted");
    }
    display.stop();
    console.log(folder);
  } finally {
    display.stop();
  }
}
