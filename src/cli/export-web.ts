/** `minigpt4 export web`: a folder for any static host, with a page in which the model runs. */
import { basename, join, resolve } from "node:path";
import { type Command, Option } from "commander";
import { modelPath } from "../chat/minigpt4.ts";
import { exportWeb } from "../convert/export-web.ts";
import { untilInterrupted } from "./options.ts";
import { countDisplay, downloadDisplay } from "./progress.ts";
import { formatBytes } from "./text.ts";

interface ExportWebFlags {
  readonly model: string;
  readonly precision: "int4" | "float32";
  readonly overwrite?: boolean;
  readonly json?: boolean;
}

/** The page as `npm run build:page` leaves it, in the package as in the sources. */
const pageFolder = join(import.meta.dirname, "..", "..", "dist", "web");

export function registerExportWeb(program: Command): void {
  program
    .command("web")
    .summary("make a folder for a static host, in which the model runs in the visitor's browser")
    .description(
      "Makes a folder with the page and the model, which any static host can serve: the model runs in the visitor's " +
        "browser, on WebGPU where there is one, else on WebAssembly. Images never leave the browser.",
    )
    .argument("<folder>", "where to write")
    .option("--model <name>", "a model that comes with the package or was pulled, or a model folder", "nano")
    .addOption(
      new Option(
        "--precision <type>",
        "int4 rounds the language model's matrices to 4 bits and others to float16, and has a GPU multiply in 4 bits; " +
          "blocks of a GGUF file always stay as they are",
      )
        .choices(["int4", "float32"])
        .default("int4"),
    )
    .option("--overwrite", "replace an earlier export")
    .option("--json", 'print {"path", "bytes", "modelBytes"}')
    .addHelpText(
      "after",
      `
Examples:
  minigpt4 export web site
  npx serve site             and open the address that it prints`,
    )
    .action(exportPage);
}

async function exportPage(output: string, { model, precision, overwrite, json }: ExportWebFlags): Promise<void> {
  const signal = untilInterrupted();
  const download = downloadDisplay();
  const display = countDisplay("Packing tensors");
  try {
    const path = modelPath(model);
    const { onProgress } = download;
    const written = await exportWeb(path, output, {
      page: pageFolder,
      name: basename(resolve(path)),
      precision,
      overwrite,
      pull: { onProgress, signal },
      signal,
      onProgress: (done, total) => display.update(done, total),
    });
    display.stop();
    console.log(json ? JSON.stringify(written) : toText(output, written));
  } finally {
    download.stop();
    display.stop();
  }
}

function toText(
  output: string,
  { bytes, modelBytes }: { readonly bytes: number; readonly modelBytes: number },
): string {
  return `${output}: ${formatBytes(bytes)}, of which a visitor's browser loads ${formatBytes(modelBytes)} of the model, once.
Any static host can serve it. To try it: npx serve ${JSON.stringify(output)}`;
}
