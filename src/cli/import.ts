/** `minigpt4 import`: the released files become a model folder. */
import { type Command, Option } from "commander";
import { type Imported, importModel } from "../convert/import.ts";
import {
  type EncoderPrecision,
  encoderPrecisions,
  type ImportPrecision,
  importPrecisions,
} from "../convert/import-plan.ts";
import { blockSizes } from "../formats/quantized-safetensors.ts";
import { type PromptTemplate, promptTemplates } from "../tokenizers/prompts.ts";
import { integerBetween, untilInterrupted } from "./options.ts";
import { importProgress, stepDisplay } from "./progress.ts";
import { formatBytes } from "./text.ts";

interface ImportFlags {
  readonly vit: string;
  readonly qformer?: string;
  readonly llm: string;
  readonly projection: string;
  readonly out: string;
  readonly precision?: ImportPrecision;
  readonly blockSize: string;
  readonly encoderPrecision?: EncoderPrecision;
  readonly prefill?: boolean;
  readonly template?: PromptTemplate["name"];
  readonly vitHeads?: number;
  readonly vitLayers?: number;
  readonly qformerHeads?: number;
  readonly json?: boolean;
}

export function registerImport(program: Command): void {
  program
    .command("import")
    .summary("make a model folder of the files that MiniGPT-4 was released as")
    .description(
      "Makes a model folder that needs nothing else of the files that MiniGPT-4 was released as: image encoder, Q-Former, " +
        "language model and projection. All dimensions are read from the files, and whether these fit each other is checked " +
        "first. What was interrupted goes on where it was when the same command is given again.",
    )
    .requiredOption("--vit <file>", "image encoder (eva_vit_g.pth)")
    .option("--qformer <file>", "Q-Former (blip2_pretrained_flant5xxl.pth); leave it out for the Llama 2 release")
    .requiredOption("--llm <folder>", "language model: a folder as Hugging Face has it, or a GGUF file")
    .requiredOption("--projection <file>", "the projection (pretrained_minigpt4_7b.pth)")
    .requiredOption("--out <folder>", "the model folder that is made")
    .addOption(
      new Option(
        "--precision <type>",
        "of the language model's matrices: 4 or 8 bits in blocks of 32, float16, or as exact as the files " +
          "(default: int4; a GGUF file stays as it is)",
      ).choices(importPrecisions),
    )
    .addOption(
      new Option(
        "--block-size <n>",
        "most elements of a row that share a scale in 4 and 8 bits: large blocks are smaller and faster, small ones finer",
      )
        .choices(blockSizes.map(String))
        .default("128"),
    )
    .addOption(
      new Option(
        "--encoder-precision <type>",
        "of the image encoder's matrices (default: int8 where the language model is in 4 or 8 bits and photos stay the same, else fp16)",
      ).choices(encoderPrecisions),
    )
    .addOption(
      new Option(
        "--template <name>",
        "how conversations are written (default: vicuna-v0, or llama-2 without a Q-Former)",
      ).choices(Object.keys(promptTemplates)),
    )
    .option(
      "--prefill",
      "of 4 or 8 bits: write the layers of the language model once more, in bytes, with which long prompts are read faster; " +
        "it takes disk, no memory (7B: 6.5 GB) (default: where this processor can use it)",
    )
    .option("--no-prefill", "leave that copy out")
    .option("--vit-heads <n>", "heads of the image encoder (default: width / 88)", integerBetween(1, 1024))
    .option(
      "--vit-layers <n>",
      "blocks of the image encoder that are run (default: all; of EVA-CLIP g 39 of 40)",
      integerBetween(1, 1024),
    )
    .option("--qformer-heads <n>", "heads of the Q-Former (default: width / 64)", integerBetween(1, 1024))
    .option("--json", 'print {"path", "bytes", "template", "encoder", "resumed"}')
    .addHelpText(
      "after",
      `
Examples:
  minigpt4 import --vit eva_vit_g.pth --qformer blip2_pretrained_flant5xxl.pth \\
    --llm vicuna-7b/ --projection pretrained_minigpt4_7b.pth --out minigpt4-7b
  minigpt4 import --vit eva_vit_g.pth --llm Llama-2-7b-chat-hf/ \\
    --projection pretrained_minigpt4_llama2_7b.pth --out minigpt4-llama2`,
    )
    .action(importFiles);
}

async function importFiles({ json, blockSize, ...flags }: ImportFlags): Promise<void> {
  const display = stepDisplay();
  try {
    const imported = await importModel({
      ...flags,
      blockSize: blockSizes.find((size) => `${size}` === blockSize),
      signal: untilInterrupted(),
      onProgress: importProgress(display),
    });
    display.stop();
    console.log(json ? JSON.stringify(imported) : toText(imported));
  } finally {
    display.stop();
  }
}

function toText({ path, bytes, template, encoder, resumed }: Imported): string {
  const similar =
    encoder.similarity === undefined
      ? ""
      : `\nThe image encoder is stored in ${encoder.precision}: photos in int8 have a cosine similarity of ${encoder.similarity.toFixed(5)} to float32.`;
  const earlier = resumed > 0 ? `, of which ${formatBytes(resumed)} were there already` : "";
  return `${path}: ${formatBytes(bytes)}${earlier}; conversations are written as ${template}.${similar}
To try it: minigpt4 chat --model ${JSON.stringify(path)} IMAGE`;
}
