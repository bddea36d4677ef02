/** `minigpt4 curate run`: all steps that need no person, as a recipe says. */
import type { Command } from "commander";
import { modelPath } from "../../chat/minigpt4.ts";
import type { PolishOptions } from "../../curation/polishing/plan.ts";
import { type CurationRecipe, readCurationRecipe } from "../../curation/recipe.ts";
import { readRules } from "../../curation/rules/rule-set.ts";
import { type ProjectStatus, statusOf } from "../../curation/status.ts";
import type { CurationStore } from "../../curation/store.ts";
import { answerOptions, Interrupted, settingsOption, untilInterrupted } from "../options.ts";
import { formatCount, printable } from "../text.ts";
import { askingOf, beginProject, describeProject, describeText } from "./describe.ts";
import { exportProject, exportText } from "./export.ts";
import { filterProject, filterText } from "./filter.ts";
import { polishProject, polishTable, readPrompt } from "./polish.ts";

interface RunFlags {
  readonly set: readonly string[];
  readonly json?: boolean;
}

export function registerRun(curate: Command): void {
  curate
    .command("run")
    .summary("describe, polish, filter and export as a recipe says")
    .description(
      "Takes the steps that need no person, one after the other: describe, polish, filter, and the export of what was kept. " +
        "Each goes on where it was, so that the same command is given after an interruption, and again after the review.",
    )
    .argument("<recipe>", "a YAML file, for example recipes/curate.yaml")
    .addOption(settingsOption())
    .option("--json", "print what each step did, and where the project stands, as one JSON object")
    .addHelpText(
      "after",
      `
Examples:
  minigpt4 curate run recipes/curate.yaml
  minigpt4 curate run recipes/curate.yaml --set images.path=photos --set images.count=500 --set polish=null
  minigpt4 curate run recipes/curate.yaml --set export.unreviewed=true`,
    )
    .action(run);
}

async function run(path: string, { set, json = false }: RunFlags): Promise<void> {
  const recipe = await readCurationRecipe(path, set);
  const signal = untilInterrupted();
  // Whatever is wrong with a later step is found before the first one.
  const [rules, polish] = await Promise.all([readRules(recipe.filter.rules), polishOptions(recipe)]);
  const reports: Record<string, unknown> = {};
  const note = (step: string, report: object, text: string) => {
    reports[step] = report;
    if (!json) console.log(`${step}\n${text.replace(/^/gm, "  ")}`);
  };
  const described = await describeOptions(recipe);
  const store = await beginProject(recipe.images.path, { ...recipe.images, project: recipe.project }, signal);
  try {
    const description = await describeProject(store, described, recipe.describe, signal);
    note("describe", description, describeText(description));
    let isComplete = true;
    if (polish) {
      const report = await polishProject(store, polish, signal);
      note("polish", report, polishTable(report));
      if (signal.aborted) throw new Interrupted("Interrupted");
      isComplete = report.stopped === undefined;
    }
    // Rules are for texts that are as good as they get.
    if (isComplete) {
      const report = await filterProject(store, rules, { signal });
      note("filter", { ...report, dropped: report.dropped.length }, filterText(report));
      await exportFinished(store, recipe, signal, note);
    }
    const status = statusOf(store);
    const next = isComplete ? nextStep(status, recipe) : "Polishing is not done; the same command goes on with it";
    console.log(json ? JSON.stringify({ ...reports, status, next }) : `\n${next}`);
  } finally {
    store.close();
  }
}

async function describeOptions({ describe }: CurationRecipe) {
  const { prompt, continues, parallel, tries, short_answer: shortAnswer, beams, temperature, seed } = describe;
  return {
    asking: prompt ?? (await askingOf(modelPath(describe.model))),
    decoding: answerOptions({
      ...describe,
      ...{ beams, temperature, seed },
      topP: describe.top_p,
      topK: describe.top_k,
      repetitionPenalty: describe.repetition_penalty,
      maxNewTokens: describe.max_new_tokens,
    }),
    ...{ continues, parallel, tries, shortAnswer },
  };
}

/** @throws Error if the prompt cannot be read, or nobody says which service polishes */
async function polishOptions({ polish }: CurationRecipe): Promise<PolishOptions | undefined> {
  if (!polish) return undefined;
  const { base_url: baseUrl = process.env.OPENAI_BASE_URL, timeout, model, temperature, ...more } = polish;
  if (!baseUrl)
    throw new Error("Which service polishes? Say it with polish.base_url, or remove the step with --set polish=null");
  const { parallel, retries, budget } = more;
  return {
    ...{ baseUrl, model, temperature, parallel, retries, budget, maxTokens: more.max_tokens },
    apiKey: process.env[more.api_key_env]?.trim() || undefined,
    apiKeyName: more.api_key_env,
    prompt: more.prompt_file === undefined ? undefined : await readPrompt(more.prompt_file),
    timeout: timeout === undefined ? undefined : Math.round(timeout * 1000),
  };
}

/** Exports, if the recipe says so and there is something to export. */
async function exportFinished(
  store: CurationStore,
  { export: wanted }: CurationRecipe,
  signal: AbortSignal,
  note: (step: string, report: object, text: string) => void,
): Promise<void> {
  if (!wanted) return;
  const { unreviewed, overwrite } = wanted;
  const { kept, open } = statusOf(store).standing;
  if (kept + (unreviewed ? open : 0) === 0) return;
  const report = await exportProject(store, wanted.folder, { unreviewed, overwrite, signal });
  note("export", report, exportText(report));
}

/** What a person does now. */
function nextStep({ standing }: ProjectStatus, { project, export: wanted }: CurationRecipe): string {
  if (standing.open > 0 && !wanted?.unreviewed) {
    const then = wanted ? ", then give this command again" : "";
    return `${formatCount(standing.open)} texts wait for a person: minigpt4 curate review --project ${printable(project)}${then}`;
  }
  if (!wanted) return `All is reviewed: minigpt4 curate export FOLDER --project ${printable(project)}`;
  if (standing.kept + standing.open === 0) return "No text is left; minigpt4 curate status shows why";
  return `Train on it: minigpt4 train recipes/stage2.yaml --set datasets.cc_sbu_align.path=${printable(wanted.folder)}`;
}
