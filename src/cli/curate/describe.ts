/** `minigpt4 curate describe`: adds images to a project, and describes them with a model. */
import { type Command, Option } from "commander";
import { modelPath } from "../../chat/models.ts";
import {
  type DescribeOptions,
  type DescribeReport,
  defaultTries,
  describeImages,
  type PromptStyle,
  promptStyles,
  undescribed,
} from "../../curation/describe.ts";
import { addImages, chooseImages } from "../../curation/images.ts";
import { CurationStore } from "../../curation/store.ts";
import type { InvalidSample } from "../../data/dataset.ts";
import { formatNames, type OpenOptions, openDataset } from "../../data/formats/open.ts";
import { printable } from "../../files/errors.ts";
import { readTemplateName } from "../../models/model-folder.ts";
import type { CommandContext } from "../context.ts";
import {
  type AnswerFlags,
  addAnswerOptions,
  addDeprecatedOption,
  answerOptions,
  integerBetween,
  loadModel,
  type ModelFlags,
  type ProjectFlags,
  projectOption,
} from "../options.ts";
import { ProgressDisplay } from "../progress.ts";
import { formatCount } from "../text.ts";

/** The images of a project. */
interface ProjectOptions extends ProjectFlags, Pick<OpenOptions, "format" | "images"> {
  readonly count: number;
  readonly seed?: number;
}

interface DescribeStepFlags extends AnswerFlags, ProjectOptions {
  readonly prompt?: PromptStyle;
  readonly continues?: number;
  readonly parallel?: number;
  readonly tries: number;
  readonly json?: boolean;
}

/** Number of images in the paper. */
const defaultCount = 5000;
/** Problems of images that are reported one by one. */
const maxReported = 10;

export function defineDescribeStep(command: Command, context: CommandContext): void {
  command
    .description(
      "Add randomly chosen images of a dataset to a project, and describe each in detail with the model of the first training " +
        "stage. Short descriptions are continued. Run the same command again, with or without the dataset, to describe the " +
        "remaining images after an interruption.",
    )
    .argument("[data]", "a folder of images, web shards, or another dataset; not needed to continue")
    .addOption(projectOption())
    .option("--count <n>", "number of images; a larger number later adds images", integerBetween(1, 1e7), defaultCount)
    .addOption(new Option("--format <name>", "format of the dataset (default: detected)").choices(formatNames))
    .option("--images <folder>", "folder of the dataset's images (default: as its format defines)")
    .addOption(
      new Option(
        "--prompt <kind>",
        "paper: the prompt of the paper; describe: the prompt that the model was trained with (default: paper for models with " +
          "the vicuna-v0 template, else describe)",
      ).choices(promptStyles),
    )
    .option(
      "--continues <n>",
      'number of times that "Continue" extends a description of at most 80 tokens (default: 1, or 0 with --prompt describe)',
      integerBetween(0, 10),
    )
    .option(
      "--parallel <n>",
      "number of images at a time (default: as memory allows, at most 16)",
      integerBetween(1, 256),
    )
    .option("--tries <n>", "number of attempts to read an image", integerBetween(1, 1000), defaultTries)
    .option("--json", "print the report as one JSON object");
  addDeprecatedOption(command, context, { flags: "--layout <name>", replacement: "--format" });
  addAnswerOptions(command, context)
    .addHelpText(
      "after",
      `
--seed also seeds the choice of images.

Examples:
  minigpt4 curate describe photos --count 500
  minigpt4 curate describe "shards/{00000..00331}.tar" --model runs/stage1 --top-p 0.9 --repetition-penalty 1.05
  minigpt4 curate describe --model runs/stage1 --project second.db`,
    )
    .action((data, flags) => describeStep(context, data, flags));
}

async function describeStep(
  context: CommandContext,
  data: string | undefined,
  flags: DescribeStepFlags,
): Promise<void> {
  const signal = context.untilInterrupted();
  const path = modelPath(flags.model);
  const promptStyle = flags.prompt ?? (await defaultPromptStyle(path));
  const store =
    data === undefined ? CurationStore.open(flags.project) : await createProject(context, data, { ...flags, signal });
  try {
    const report = await describeProject(context, store, {
      ...{ ...flags, promptStyle, decoding: answerOptions(flags) },
      model: flags,
      signal,
    });
    context.print(flags.json ? JSON.stringify(report) : describeText(report));
  } finally {
    store.close();
  }
}

/** The prompt kind for a model, unless it is given. */
export async function defaultPromptStyle(modelFolder: string): Promise<PromptStyle> {
  return (await readTemplateName(modelFolder)) === "vicuna-v0" ? "paper" : "describe";
}

/** Opens or creates the project, and adds images of the dataset. */
export async function createProject(
  context: CommandContext,
  data: string,
  { count, seed = 0, project, format, images, signal }: ProjectOptions & { readonly signal: AbortSignal },
): Promise<CurationStore> {
  const dataset = await openDataset(data, { format, images });
  const display = new ProgressDisplay(context);
  const problems = new ProblemReporter(display);
  const listing = display.task("files listed");
  const pairs = await chooseImages(dataset, {
    count,
    seed,
    signal,
    onProblem: (problem) => problems.report(problem),
    onProgress: (done, total) => total > 1 && listing(done, total),
  }).finally(() => display.stop());
  const store = CurationStore.open(project, { create: true });
  try {
    const { added, known, duplicates, unreadable } = await addImages(store, pairs, {
      signal,
      onProgress: display.task("images read"),
    });
    display.stop();
    for (const problem of unreadable) problems.report(problem);
    problems.finish();
    const notes = [
      known > 0 && `${formatCount(known)} already in it`,
      duplicates > 0 && `${formatCount(duplicates)} duplicates`,
      unreadable.length > 0 && `${formatCount(unreadable.length)} unreadable`,
    ].filter((part) => part !== false);
    const counts = `${formatCount(added)} of ${formatCount(pairs.length)} images added to ${project}`;
    context.printError([counts, ...notes].join("; "));
    return store;
  } catch (error) {
    store.close();
    throw error;
  } finally {
    display.stop();
  }
}

/** Describes the remaining images of a project; the model is loaded only if there are any. */
export async function describeProject(
  context: CommandContext,
  store: CurationStore,
  { model, signal, ...options }: DescribeOptions & { readonly model: ModelFlags; readonly signal: AbortSignal },
): Promise<DescribeReport> {
  const { images, givenUp, total } = undescribed(store, options.tries);
  if (total === 0) throw new Error("The project has no images; pass a dataset");
  if (images.length === 0) {
    return { described: 0, continued: 0, longer: 0, failed: 0, givenUp, promptTokens: 0, completionTokens: 0 };
  }
  const { engine } = await loadModel(context, model, { signal, maxBatch: options.parallel });
  const display = new ProgressDisplay(context);
  const problems = new ProblemReporter(display);
  try {
    return await describeImages(
      store,
      engine,
      {
        ...options,
        onProgress: display.task("images described"),
        onFailure: ({ name }, reason) => problems.report({ name, reason }),
      },
      signal,
    );
  } finally {
    problems.finish();
    display.stop();
    await engine.close();
  }
}

/** Reports the first problems on standard error, and at the end the number of others. */
class ProblemReporter {
  private readonly display: ProgressDisplay;
  private count = 0;

  constructor(display: ProgressDisplay) {
    this.display = display;
  }

  report({ name, reason }: InvalidSample): void {
    if (++this.count > maxReported) return;
    this.display.message(printable(reason.includes(name) ? reason : `${name}: ${reason}`));
  }

  finish(): void {
    if (this.count > maxReported) this.display.message(`... and ${formatCount(this.count - maxReported)} more`);
  }
}

/** The report as text. */
export function describeText({ described, continued, longer, failed, givenUp }: DescribeReport): string {
  const parts = [
    `${formatCount(described)} images described`,
    continued > 0 && `${formatCount(continued)} of them continued, ${formatCount(longer)} became longer`,
    failed > 0 && `${formatCount(failed)} failed; run the same command again to retry`,
    givenUp > 0 && `${formatCount(givenUp)} failed too often and are skipped`,
  ];
  return parts.filter((part) => part !== false).join("; ");
}
