/** `minigpt4 curate describe`: begins a project with images, and has a model describe them. */
import { type Command, Option } from "commander";
import { modelPath } from "../../chat/minigpt4.ts";
import {
  type Asking,
  askings,
  type DescribeOptions,
  type DescribeReport,
  describeImages,
  triesByDefault,
  undescribed,
} from "../../curation/describe.ts";
import { addImages, chooseImages } from "../../curation/images.ts";
import { CurationStore } from "../../curation/store.ts";
import type { InvalidSample } from "../../data/dataset.ts";
import { formatNames, type OpenOptions, openDataset } from "../../data/formats/open.ts";
import { templateName } from "../../models/model-folder.ts";
import {
  type AnswerFlags,
  addAnswerOptions,
  answerOptions,
  integerBetween,
  loadModel,
  type ModelFlags,
  type ProjectFlags,
  projectOption,
  untilInterrupted,
} from "../options.ts";
import { type CountDisplay, countDisplay } from "../progress.ts";
import { formatCount, printable } from "../text.ts";

/** Which images a project is about. */
interface BeginOptions extends ProjectFlags, Pick<OpenOptions, "format" | "images"> {
  readonly count: number;
  readonly seed?: number;
}

interface DescribeStepFlags extends AnswerFlags, BeginOptions {
  readonly prompt?: Asking;
  readonly continues?: number;
  readonly parallel?: number;
  readonly tries: number;
  readonly json?: boolean;
}

/** Images that the paper had described. */
const countOfPaper = 5000;
/** Problems of images that are told one by one. */
const mostTold = 10;

export function registerDescribeStep(curate: Command): void {
  const command = curate
    .command("describe")
    .summary("have a model describe images")
    .description(
      "Adds images of a data set, chosen at random, to a project, and has the first stage's model describe each in detail. " +
        "Short descriptions are gone on with. It can be stopped at any moment; the same command goes on with what has no " +
        "description yet, also without the data set.",
    )
    .argument("[data]", "a folder of images, web shards, or any other data set; not needed to go on")
    .addOption(projectOption())
    .option(
      "--count <n>",
      "images; more of them later adds to those chosen before",
      integerBetween(1, 1e7),
      countOfPaper,
    )
    .addOption(new Option("--format <name>", "dataset format, if it is ambiguous").choices(formatNames))
    .addOption(new Option("--layout <name>", "deprecated: --format").choices(formatNames).hideHelp())
    .option("--images <folder>", "of a data set's images, where its format does not say")
    .addOption(
      new Option(
        "--prompt <kind>",
        "paper: the paper's words, in the model's conversation; describe: the prompt it was trained to describe with " +
          "(default: paper for models in Vicuna's form, else describe)",
      ).choices(askings),
    )
    .option(
      "--continues <n>",
      'times that a description of 80 tokens or fewer is gone on with by "Continue" (default: 1, with --prompt describe 0)',
      integerBetween(0, 10),
    )
    .option(
      "--parallel <n>",
      "images at a time (default: as many as memory allows, at most 16)",
      integerBetween(1, 256),
    )
    .option("--tries <n>", "times that an image which cannot be read is tried", integerBetween(1, 1000), triesByDefault)
    .option("--json", "print the counts as one JSON object");
  addAnswerOptions(command)
    .addHelpText(
      "after",
      `
--seed is that of the choice of images, too.

Examples:
  minigpt4 curate describe photos --count 500
  minigpt4 curate describe "shards/{00000..00331}.tar" --model runs/stage1 --top-p 0.9 --repetition-penalty 1.05
  minigpt4 curate describe --model runs/stage1 --project second.db`,
    )
    .action(describeStep);
}

async function describeStep(data: string | undefined, flags: DescribeStepFlags): Promise<void> {
  const signal = untilInterrupted();
  const path = modelPath(flags.model);
  const asking = flags.prompt ?? (await askingOf(path));
  const store = data === undefined ? CurationStore.open(flags.project) : await beginProject(data, flags, signal);
  try {
    const report = await describeProject(store, { ...flags, asking, decoding: answerOptions(flags) }, flags, signal);
    console.log(flags.json ? JSON.stringify(report) : describeText(report));
  } finally {
    store.close();
  }
}

/** How a model is asked for descriptions where nobody says. */
export async function askingOf(modelFolder: string): Promise<Asking> {
  return (await templateName(modelFolder)) === "vicuna-v0" ? "paper" : "describe";
}

/** Opens the project, which is made if it is not there, with images of the data set added. */
export async function beginProject(
  data: string,
  { count, seed = 0, project, format, images }: BeginOptions,
  signal: AbortSignal,
): Promise<CurationStore> {
  const dataset = await openDataset(data, { ...(format && { format }), ...(images && { images }) });
  const listing = countDisplay("files listed");
  const told = problemTeller(listing);
  const pairs = await chooseImages(dataset, {
    count,
    seed,
    signal,
    onProblem: told.tell,
    onProgress: (done, total) => total > 1 && listing.update(done, total),
  }).finally(listing.stop);
  const store = CurationStore.open(project, { create: true });
  const reading = countDisplay("images read");
  try {
    const { added, known, duplicates, unreadable } = await addImages(store, pairs, {
      signal,
      onProgress: (done, total) => reading.update(done, total),
    });
    reading.stop();
    unreadable.forEach(told.tell);
    told.finish();
    const also = [
      known > 0 && `${formatCount(known)} there before`,
      duplicates > 0 && `${formatCount(duplicates)} the same as another`,
      unreadable.length > 0 && `${formatCount(unreadable.length)} unreadable`,
    ].filter((part) => part !== false);
    process.stderr.write(
      `${[`${formatCount(added)} of ${formatCount(pairs.length)} images added to ${project}`, ...also].join("; ")}\n`,
    );
    return store;
  } catch (error) {
    store.close();
    throw error;
  } finally {
    reading.stop();
  }
}

/** Has the project's images described; the model is only loaded if there is one to describe. */
export async function describeProject(
  store: CurationStore,
  options: DescribeOptions,
  model: ModelFlags,
  signal: AbortSignal,
): Promise<DescribeReport> {
  const { images, givenUp, total } = undescribed(store, options.tries);
  if (total === 0) throw new Error("The project has no images; name a data set");
  if (images.length === 0) {
    return { described: 0, continued: 0, longer: 0, failed: 0, givenUp, promptTokens: 0, completionTokens: 0 };
  }
  const { parallel } = options;
  const { engine } = await loadModel(model, signal, parallel === undefined ? {} : { maxBatch: parallel });
  const display = countDisplay("images described");
  const told = problemTeller(display);
  try {
    return await describeImages(
      store,
      engine,
      {
        ...options,
        onProgress: (done, of) => display.update(done, of),
        onFailure: ({ name }, reason) => told.tell({ name, reason }),
      },
      signal,
    );
  } finally {
    told.finish();
    display.stop();
    await engine.close();
  }
}

/** Tells the first problems on standard error, and at the end how many more there were. */
function problemTeller(display: CountDisplay): { tell(problem: InvalidSample): void; finish(): void } {
  let count = 0;
  return {
    tell({ name, reason }) {
      if (++count > mostTold) return;
      display.say(printable(reason.includes(name) ? reason : `${name}: ${reason}`));
    },
    finish() {
      if (count > mostTold) display.say(`... and ${formatCount(count - mostTold)} more like these`);
    },
  };
}

/** What was done, for people. */
export function describeText({ described, continued, longer, failed, givenUp }: DescribeReport): string {
  const parts = [
    `${formatCount(described)} images described`,
    continued > 0 && `${formatCount(continued)} of them gone on with, ${formatCount(longer)} became longer`,
    failed > 0 && `${formatCount(failed)} failed, and are tried again by the same command`,
    givenUp > 0 && `${formatCount(givenUp)} failed too often`,
  ];
  return parts.filter((part) => part !== false).join("; ");
}
