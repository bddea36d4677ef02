/** `minigpt4 encode`: fills the feature cache of a recipe before training. */
import type { Command } from "commander";
import type { EncodeOptions } from "../training/encode.ts";
import { type CommandContext, Interrupted } from "./context.ts";
import { deviceOption, openRecipe, settingsOption } from "./options.ts";
import { ProgressDisplay } from "./progress.ts";
import { formatCount } from "./text.ts";

interface EncodeFlags {
  readonly set: readonly string[];
  readonly json?: boolean;
  readonly device: NonNullable<EncodeOptions["device"]>;
}

export function defineEncode(command: Command, context: CommandContext): void {
  command
    .description(
      "Run the frozen image encoder (and the Q-Former, if it is frozen) over all images of a recipe and write the outputs to " +
        "the recipe's feature cache, so that training does not wait for them. Cached features are not computed again, and " +
        "Ctrl-C keeps what was computed.",
    )
    .argument("<recipe>", "a YAML file")
    .addOption(settingsOption())
    .option("--json", 'print one JSON object: {"total", "computed", "broken"}')
    .addOption(deviceOption())
    .addHelpText(
      "after",
      "\nExample:\n  minigpt4 encode recipes/stage2.yaml --set datasets.cc_sbu_align.path=/data/cc_sbu_align",
    )
    .action((path, flags) => encode(context, path, flags));
}

async function encode(context: CommandContext, path: string, { set, json, device }: EncodeFlags): Promise<void> {
  const { encodeRecipe } = await import("../training/encode.ts");
  const recipe = await openRecipe(context, path, set);
  const signal = context.untilInterrupted();
  const display = new ProgressDisplay(context);
  try {
    const report = await encodeRecipe(recipe, {
      device,
      signal,
      onProgress: display.task("images encoded"),
      onMessage: (message) => display.message(message),
    });
    display.stop();
    const { total, computed, broken } = report;
    const unreadable = broken > 0 ? `; ${formatCount(broken)} could not be read` : "";
    const text = `Computed features of ${formatCount(computed)} of ${formatCount(total)} images${unreadable}`;
    context.print(json ? JSON.stringify(report) : text);
    if (signal.aborted) throw new Interrupted("Interrupted");
  } finally {
    display.stop();
  }
}
