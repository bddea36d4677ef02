/** `minigpt4 export web`: writes a static web site that runs the model in the browser. */
import { basename, resolve } from "node:path";
import { type Command, Option } from "commander";
import type { CommandContext } from "./context.ts";
import { pageFolder } from "./listening.ts";
import { addDeprecatedOption } from "./options.ts";
import { ProgressDisplay } from "./progress.ts";
import { formatBytes } from "./text.ts";

interface ExportWebFlags {
  readonly model: string;
  readonly quantization: "int4" | "float32";
  readonly overwrite?: boolean;
  readonly json?: boolean;
}

export function defineExportWeb(command: Command, context: CommandContext): void {
  command
    .description(
      "Write a folder with the web page and the model, which any static host can serve. The model runs in the visitor's " +
        "browser, on WebGPU or WebAssembly. Images never leave the browser.",
    )
    .argument("<folder>", "output folder")
    .option("--model <name>", "name of a bundled or pulled model, or path of a model folder", "nano")
    .addOption(
      new Option(
        "--quantization <type>",
        "int4 quantizes the language model's matrices to 4 bits and converts the others to float16; quantized matrices of a " +
          "GGUF file are always kept",
      )
        .choices(["int4", "float32"])
        .default("int4"),
    )
    .option("--overwrite", "replace an existing export")
    .option("--json", 'print one JSON object: {"path", "bytes", "modelBytes"}')
    .addHelpText(
      "after",
      `
Examples:
  minigpt4 export web site
  npx serve site             then open the printed address`,
    )
    .action((output, flags) => exportPage(context, output, flags));
  addDeprecatedOption(command, context, { flags: "--precision <type>", replacement: "--quantization" });
}

async function exportPage(
  context: CommandContext,
  output: string,
  { model, quantization, overwrite, json }: ExportWebFlags,
): Promise<void> {
  const signal = context.untilInterrupted();
  const [{ exportWeb }, { modelPath }] = await Promise.all([
    import("../convert/export-web.ts"),
    import("../chat/models.ts"),
  ]);
  const display = new ProgressDisplay(context);
  try {
    const path = modelPath(model);
    const written = await exportWeb(path, output, {
      page: pageFolder,
      name: basename(resolve(path)),
      quantization,
      overwrite,
      pull: { onProgress: display.download, signal },
      signal,
      onProgress: display.task("Packing tensors"),
    });
    display.stop();
    context.print(json ? JSON.stringify(written) : toText(output, written));
  } finally {
    display.stop();
  }
}

function toText(
  output: string,
  { bytes, modelBytes }: { readonly bytes: number; readonly modelBytes: number },
): string {
  return `${output}: ${formatBytes(bytes)}, ${formatBytes(modelBytes)} of it the model, which a browser downloads once.
Serve it with any static host, for example: npx serve ${JSON.stringify(output)}`;
}
