/** `minigpt4 encode`: fills the feature cache of a recipe before it is trained. */
import { type Command, Option } from "commander";
import { devices } from "../runtime/environment.ts";
import { type EncodeOptions, encodeRecipe } from "../training/encode.ts";
import { Interrupted, openRecipe, settingsOption, untilInterrupted } from "./options.ts";
import { countDisplay } from "./progress.ts";
import { formatCount } from "./text.ts";

interface EncodeFlags {
  readonly set: readonly string[];
  readonly json?: boolean;
  readonly device: NonNullable<EncodeOptions["device"]>;
}

export function registerEncode(program: Command): void {
  program
    .command("encode")
    .summary("compute the features of a recipe's images before training")
    .description(
      "Runs the frozen image encoder (and the Q-Former, where it is frozen) over all images of a recipe and keeps what comes " +
        "out in the recipe's feature cache, so that no training step waits for it. What is there already is not computed again; " +
        "after Ctrl-C, what was computed stays.",
    )
    .argument("<recipe>", "a YAML file")
    .addOption(settingsOption())
    .option("--json", "print the counts as JSON")
    .addOption(new Option("--device <device>", "where to compute").choices(devices).default("auto"))
    .addHelpText(
      "after",
      "\nExample:\n  minigpt4 encode recipes/stage2.yaml --set datasets.cc_sbu_align.path=/data/cc_sbu_align",
    )
    .action(encode);
}

async function encode(path: string, { set, json, device }: EncodeFlags): Promise<void> {
  const recipe = await openRecipe(path, set);
  const signal = untilInterrupted();
  const display = countDisplay("images encoded");
  try {
    const report = await encodeRecipe(recipe, {
      device,
      signal,
      onProgress: (done, total) => display.update(done, total),
      onMessage: (message) => display.say(message),
    });
    display.stop();
    const { total, computed, broken } = report;
    console.log(
      json
        ? JSON.stringify(report)
        : `${formatCount(computed)} of ${formatCount(total)} were new${broken > 0 ? `; ${formatCount(broken)} are broken` : ""}`,
    );
    if (signal.aborted) throw new Interrupted("Interrupted");
  } finally {
    display.stop();
  }
}
