/** `minigpt4 delta apply`: adds a weight delta to its base model. */
import type { Command } from "commander";
import type { Merged } from "../convert/delta.ts";
import type { CommandContext } from "./context.ts";
import { addCommands } from "./lazy-commands.ts";
import { ProgressDisplay } from "./progress.ts";
import { formatBytes } from "./text.ts";

interface DeltaFlags {
  readonly base: string;
  readonly delta: string;
  readonly out: string;
  readonly json?: boolean;
}

export function defineDelta(command: Command, context: CommandContext): void {
  command.description(
    "Work with language models that are published as a weight delta, as Vicuna v0 is: its base, LLaMA, has to be added.",
  );
  addCommands(command, context, [
    { name: "apply", summary: "add a delta to its base model", load: async () => defineApply },
  ]);
}

function defineApply(command: Command, context: CommandContext): void {
  command
    .description(
      "Add a delta to its base model, tensor by tensor, and write the sum in float16 with the config and tokenizer of the " +
        "delta. Run the same command again to continue after an interruption.",
    )
    .requiredOption("--base <folder>", "base model, a Hugging Face folder")
    .requiredOption("--delta <folder>", "delta, a Hugging Face folder")
    .requiredOption("--out <folder>", "output folder")
    .option("--json", 'print one JSON object: {"path", "bytes", "tensors", "addedRows"}')
    .addHelpText(
      "after",
      "\nExample:\n  minigpt4 delta apply --base llama-7b --delta vicuna-7b-delta-v0 --out vicuna-7b-v0",
    )
    .action((flags) => apply(context, flags));
}

async function apply(context: CommandContext, { json, ...folders }: DeltaFlags): Promise<void> {
  const { applyDelta } = await import("../convert/delta.ts");
  const signal = context.untilInterrupted();
  const display = new ProgressDisplay(context);
  try {
    const onProgress = (step: string, done: number, total: number) => display.task(step, "bytes")(done, total);
    const merged = await applyDelta({ ...folders, signal, onProgress });
    display.stop();
    context.print(json ? JSON.stringify(merged) : toText(merged));
  } finally {
    display.stop();
  }
}

function toText({ path, bytes, tensors, addedRows }: Merged): string {
  const tokens = addedRows > 0 ? `, ${addedRows} token${addedRows > 1 ? "s" : ""} more than the base` : "";
  return `${path}: ${tensors} tensors, ${formatBytes(bytes)}${tokens}`;
}
