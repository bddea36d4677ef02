/** `minigpt4 import`: converts the files of a released MiniGPT-4 to a model folder. */
import { type Command, Option } from "commander";
import { type Imported, importModel } from "../convert/import.ts";
import {
  type EncoderQuantization,
  encoderQuantizations,
  type ImportQuantization,
  importQuantizations,
} from "../convert/import-plan.ts";
import { blockSizes } from "../tensor/quant/blocks.ts";
import { oldQuantizations } from "../tensor/quant/quantization.ts";
import { type PromptTemplate, promptTemplates } from "../tokenizers/prompts.ts";
import type { CommandContext } from "./context.ts";
import { addDeprecatedOption, integerBetween, withDeprecatedValues } from "./options.ts";
import { ProgressDisplay } from "./progress.ts";
import { formatBytes } from "./text.ts";

interface ImportFlags {
  readonly vit: string;
  readonly qformer?: string;
  readonly llm: string;
  readonly projection: string;
  readonly out: string;
  readonly quantization?: ImportQuantization;
  readonly blockSize: string;
  readonly encoderQuantization?: EncoderQuantization;
  readonly prefill?: boolean;
  readonly template?: PromptTemplate["name"];
  readonly vitHeads?: number;
  readonly vitLayers?: number;
  readonly qformerHeads?: number;
  readonly json?: boolean;
}

export function defineImport(command: Command, context: CommandContext): void {
  command
    .description(
      "Convert the files of a released MiniGPT-4 (image encoder, Q-Former, language model and projection) to a self-contained " +
        "model folder. All dimensions are read from the files, and checked against each other first. Run the same command " +
        "again to continue after an interruption.",
    )
    .requiredOption("--vit <file>", "image encoder (eva_vit_g.pth)")
    .option("--qformer <file>", "Q-Former (blip2_pretrained_flant5xxl.pth); omit it for the Llama 2 release")
    .requiredOption("--llm <folder>", "language model, a Hugging Face folder or a GGUF file")
    .requiredOption("--projection <file>", "projection (pretrained_minigpt4_7b.pth)")
    .requiredOption("--out <folder>", "output folder")
    .addOption(
      withDeprecatedValues(
        new Option(
          "--quantization <type>",
          "quantization of the language model's matrices: 4 or 8 bits in blocks, float16, or as exact as the files " +
            "(default: int4, or as stored in a GGUF file)",
        ).choices(importQuantizations),
        context,
        oldQuantizations,
      ),
    )
    .addOption(
      new Option(
        "--block-size <n>",
        "maximum number of elements that share a scale in 4 and 8 bits: larger blocks are smaller and faster, smaller ones more precise",
      )
        .choices(blockSizes.map(String))
        .default("128"),
    )
    .addOption(
      withDeprecatedValues(
        new Option(
          "--encoder-quantization <type>",
          "quantization of the image encoder's matrices (default: int8 if the language model is quantized and image features stay the same, else float16)",
        ).choices(encoderQuantizations),
        context,
        oldQuantizations,
      ),
    )
    .addOption(
      new Option("--template <name>", "prompt template (default: vicuna-v0, or llama-2 without a Q-Former)").choices(
        Object.keys(promptTemplates),
      ),
    )
    .option(
      "--prefill",
      "for 4 or 8 bits: also write an int8 copy of the language model's layers, which speeds up long prompts; it takes disk " +
        "space but no memory (7B: 6.5 GB) (default: if this CPU benefits)",
    )
    .option("--no-prefill", "do not write that copy")
    .option("--vit-heads <n>", "attention heads of the image encoder (default: width / 88)", integerBetween(1, 1024))
    .option(
      "--vit-layers <n>",
      "layers of the image encoder to run (default: all, or 39 of 40 for EVA-CLIP g)",
      integerBetween(1, 1024),
    )
    .option("--qformer-heads <n>", "attention heads of the Q-Former (default: width / 64)", integerBetween(1, 1024))
    .option("--json", 'print one JSON object: {"path", "bytes", "template", "encoder", "resumed"}')
    .addHelpText(
      "after",
      `
Examples:
  minigpt4 import --vit eva_vit_g.pth --qformer blip2_pretrained_flant5xxl.pth \\
    --llm vicuna-7b/ --projection pretrained_minigpt4_7b.pth --out minigpt4-7b
  minigpt4 import --vit eva_vit_g.pth --llm Llama-2-7b-chat-hf/ \\
    --projection pretrained_minigpt4_llama2_7b.pth --out minigpt4-llama2`,
    )
    .action((flags) => importFiles(context, flags));
  addDeprecatedOption(command, context, { flags: "--precision <type>", replacement: "--quantization" });
  addDeprecatedOption(command, context, {
    flags: "--encoder-precision <type>",
    replacement: "--encoder-quantization",
  });
}

async function importFiles(context: CommandContext, { json, blockSize, ...flags }: ImportFlags): Promise<void> {
  const display = new ProgressDisplay(context);
  try {
    const imported = await importModel({
      ...flags,
      blockSize: blockSizes.find((size) => `${size}` === blockSize),
      signal: context.untilInterrupted(),
      onProgress: showImport(display),
    });
    display.stop();
    context.print(json ? JSON.stringify(imported) : toText(imported));
  } finally {
    display.stop();
  }
}

/** Shows the steps of an import: comparing counts blocks of the image encoder, the other steps count bytes. */
export function showImport(display: ProgressDisplay): (step: string, done: number, total: number) => void {
  return (step, done, total) => {
    const task =
      step === "Comparing" ? display.task("Comparing blocks of the image encoder") : display.task(step, "bytes");
    task(done, total);
  };
}

function toText({ path, bytes, template, encoder, resumed }: Imported): string {
  const similar =
    encoder.similarity === undefined
      ? ""
      : `\nThe image encoder is stored in ${encoder.quantization}; image features in int8 have a cosine similarity of ${encoder.similarity.toFixed(5)} to float32.`;
  const earlier = resumed > 0 ? `, ${formatBytes(resumed)} of it from an earlier attempt` : "";
  return `${path}: ${formatBytes(bytes)}${earlier}; prompt template ${template}.${similar}
Try it with: minigpt4 chat --model ${JSON.stringify(path)} IMAGE`;
}
