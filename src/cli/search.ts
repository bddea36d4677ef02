/** `minigpt4 search`: finds images of a folder by text or by a similar image. */
import type { Command } from "commander";
import { printable } from "../files/errors.ts";
import type { FoundImage, ImageSearch } from "../retrieval/image-search.ts";
import type { CommandContext } from "./context.ts";
import { deviceOption, integerBetween, type ModelFlags } from "./options.ts";
import { ProgressDisplay } from "./progress.ts";

interface SearchFlags extends Pick<ModelFlags, "model" | "device"> {
  readonly like?: string;
  readonly top: number;
  readonly rerank: number;
  readonly index?: string;
  readonly rebuild?: boolean;
  readonly json?: boolean;
}

export function defineSearch(command: Command, context: CommandContext): void {
  command
    .description(
      "Find the images of a folder and its subfolders that match a text or look like an image, best first. Images are " +
        "indexed once: the first search takes a while, later ones index only new and changed images. Ctrl-C keeps what was " +
        "indexed.\n\n" +
        "The score is the cosine similarity. A pre-trained BLIP-2 Q-Former also ranks the best images together with the text " +
        "(--rerank), and adds its matching logit to their scores.",
    )
    .argument("<folder>", "a folder of images")
    .argument("[text]", "what the images should show")
    .option("--like <image>", "find images that look like this one, instead of a text")
    .option("-n, --top <n>", "maximum number of results", integerBetween(1, 1_000_000), 10)
    .option(
      "--model <name>",
      "nano, a model folder with a contrastive head, or the folder of a pre-trained Q-Former",
      "nano",
    )
    .addOption(deviceOption())
    .option(
      "--rerank <k>",
      "with a Q-Former, rank the k best again together with the text; 0 turns it off",
      integerBetween(0, 10_000),
      32,
    )
    .option("--index <file>", "index file (default: in the user's cache folder)")
    .option("--rebuild", "index all images again")
    .option("--json", 'print one JSON object per line: {"rank", "path", "name", "score", "itc", "itm", "probability"}')
    .addHelpText(
      "after",
      `
Examples:
  minigpt4 search ~/Pictures "a dog in the snow"
  minigpt4 search ~/Pictures --like cat.jpg -n 20
  minigpt4 search ~/Pictures "two children at the sea" --model runs/qformer --rerank 64
  minigpt4 search ~/Pictures "a red car" --json | head -1`,
    )
    .action((folder, text, flags) => {
      const { like } = flags as SearchFlags;
      if ((text === undefined) === (like === undefined)) {
        command.error("error: expected either a text or an image (--like)");
      }
      return search(context, folder, { ...flags, text });
    });
}

async function search(
  context: CommandContext,
  folder: string,
  { text, like, model, device, index, rebuild, top, rerank, json }: SearchFlags & { readonly text?: string },
): Promise<void> {
  const [{ ImageSearch }, { imageExtensions }] = await Promise.all([
    import("../retrieval/image-search.ts"),
    import("../data/formats/image-folder.ts"),
  ]);
  const signal = context.untilInterrupted();
  const display = new ProgressDisplay(context);
  let images: ImageSearch;
  try {
    images = await ImageSearch.open(folder, {
      model,
      device,
      index,
      rebuild,
      signal,
      pull: { onProgress: display.download, signal },
      onProgress: display.task("images indexed"),
      onProblem: ({ name, reason }) => display.message(`${printable(name)} ${printable(reason)}`),
      onMessage: (message) => display.message(printable(message)),
    });
  } finally {
    display.stop();
  }
  try {
    if (images.size === 0) throw new Error(`${folder} has no readable images (${imageExtensions.join(", ")})`);
    const found = await (like === undefined
      ? images.search(text ?? "", { top, rerank, signal })
      : images.like(like, { top, signal }));
    for (const [i, image] of found.entries()) {
      context.print(json ? JSON.stringify({ rank: i + 1, ...image }) : toLine(image, i + 1, top));
    }
  } finally {
    await images.close();
  }
}

function toLine({ score, path }: FoundImage, rank: number, top: number): string {
  return `${String(rank).padStart(String(top).length)}  ${score.toFixed(3).padStart(7)}  ${printable(path)}`;
}
