/** `minigpt4 delta apply`: a language model that is published as a difference, put together. */
import type { Command } from "commander";
import { applyDelta, type Merged } from "../convert/delta.ts";
import { untilInterrupted } from "./options.ts";
import { stepDisplay } from "./progress.ts";
import { formatBytes } from "./text.ts";

interface DeltaFlags {
  readonly base: string;
  readonly delta: string;
  readonly out: string;
  readonly json?: boolean;
}

export function registerDelta(program: Command): void {
  program
    .command("delta")
    .summary("language models that are published as a difference (Vicuna v0)")
    .description("Vicuna v0 is published as the difference to LLaMA, which has to be added before it is a model.")
    .command("apply")
    .summary("add a difference to its base")
    .description(
      "Adds a difference to the model that it was made from, tensor by tensor, and writes the sum in float16 with the " +
        "difference's config and tokenizer. What was interrupted goes on where it was when the same command is given again.",
    )
    .requiredOption("--base <folder>", "the model that the difference was made from, as Hugging Face has it")
    .requiredOption("--delta <folder>", "the difference")
    .requiredOption("--out <folder>", "the folder that is made")
    .option("--json", 'print {"path", "bytes", "tensors", "addedRows"}')
    .addHelpText(
      "after",
      "\nExample:\n  minigpt4 delta apply --base llama-7b --delta vicuna-7b-delta-v0 --out vicuna-7b-v0",
    )
    .action(apply);
}

async function apply({ json, ...folders }: DeltaFlags): Promise<void> {
  const display = stepDisplay();
  try {
    const merged = await applyDelta({ ...folders, signal: untilInterrupted(), onProgress: display.update });
    display.stop();
    console.log(json ? JSON.stringify(merged) : toText(merged));
  } finally {
    display.stop();
  }
}

function toText({ path, bytes, tensors, addedRows }: Merged): string {
  const tokens = addedRows > 0 ? `, with ${addedRows} token${addedRows > 1 ? "s" : ""} more than the base` : "";
  return `${path}: ${tensors} tensors, ${formatBytes(bytes)}${tokens}`;
}
