/** `minigpt4 search`: images of a folder, by words or by another image. */
import { type Command, Option } from "commander";
import { imageExtensions } from "../data/formats/image-folder.ts";
import { type FoundImage, ImageSearch } from "../retrieval/image-search.ts";
import { devices } from "../runtime/environment.ts";
import { integerBetween, type ModelFlags, untilInterrupted } from "./options.ts";
import { countDisplay, downloadDisplay } from "./progress.ts";
import { printable } from "./text.ts";

interface SearchFlags extends Pick<ModelFlags, "model" | "device"> {
  readonly like?: string;
  readonly top: number;
  readonly rerank: number;
  readonly index?: string;
  readonly rebuild?: boolean;
  readonly json?: boolean;
}

export function registerSearch(program: Command): void {
  program
    .command("search")
    .summary("find images by words, or by another image")
    .description(
      "Finds the images of a folder, and of the folders below it, that fit a text or are like an image, the best first. Each image is read " +
        "once: the first search takes a while, later ones only read what was added or changed. After Ctrl-C, what was read stays.\n\n" +
        "The score is the cosine similarity. A Q-Former as BLIP-2 pre-trains it also looks at the best images together with the text " +
        "(--rerank); to their scores the logit of that is added.",
    )
    .argument("<folder>", `a folder with images (${imageExtensions.join(", ")})`)
    .argument("[text]", "what the images should show")
    .option("--like <image>", "find images that are like this one, instead of a text")
    .option("-n, --top <n>", "most images that are found", integerBetween(1, 1_000_000), 10)
    .option(
      "--model <name>",
      "nano, a model folder with a contrastive head, or the folder of a pre-trained Q-Former",
      "nano",
    )
    .addOption(new Option("--device <device>", "where to compute").choices(devices).default("auto"))
    .option(
      "--rerank <k>",
      "with a Q-Former, look at the k best together with the text; 0 for none",
      integerBetween(0, 10_000),
      32,
    )
    .option("--index <file>", "keep what was read of the images here, instead of in the user's cache")
    .option("--rebuild", "read all images anew")
    .option("--json", 'one JSON object a line: {"rank", "path", "name", "score", "itc", "itm", "probability"}')
    .addHelpText(
      "after",
      `
Examples:
  minigpt4 search ~/Images "a dog in the snow"
  minigpt4 search ~/Images --like cat.jpg -n 20
  minigpt4 search ~/Images "two children at the sea" --model runs/qformer --rerank 64
  minigpt4 search ~/Images "a red car" --json | head -1`,
    )
    .action(search);
}

async function search(folder: string, text: string | undefined, flags: SearchFlags, command: Command): Promise<void> {
  const { like, model, device, index, rebuild, top, rerank, json } = flags;
  if ((text === undefined) === (like === undefined)) {
    command.error("error: say what to find: either a text, or an image with --like");
  }
  const signal = untilInterrupted();
  const download = downloadDisplay();
  const display = countDisplay("images indexed");
  let images: ImageSearch;
  try {
    images = await ImageSearch.open(folder, {
      model,
      device,
      ...(index !== undefined && { index }),
      ...(rebuild && { rebuild }),
      signal,
      pull: { onProgress: download.onProgress, signal },
      onProgress: (done, total) => display.update(done, total),
      onProblem: ({ name, reason }) => display.say(`${printable(name)} ${printable(reason)}`),
      onMessage: (message) => display.say(printable(message)),
    });
  } finally {
    download.stop();
    display.stop();
  }
  try {
    if (images.size === 0)
      throw new Error(`${folder} holds no images that can be read (${imageExtensions.join(", ")})`);
    const found =
      like === undefined ? images.search(text ?? "", { top, rerank, signal }) : images.like(like, { top, signal });
    for (const [i, image] of (await found).entries())
      console.log(json ? asJson(image, i + 1) : asLine(image, i + 1, top));
  } finally {
    await images.close();
  }
}

function asJson(image: FoundImage, rank: number): string {
  return JSON.stringify({ rank, ...image });
}

function asLine({ score, path }: FoundImage, rank: number, top: number): string {
  return `${String(rank).padStart(String(top).length)}  ${score.toFixed(3).padStart(7)}  ${printable(path)}`;
}
