/** `minigpt4 curate run`: the steps that need no reviewer, as a recipe says. */
import type { Command } from "commander";
import { modelPath } from "../../chat/models.ts";
import type { ExportReport } from "../../curation/export.ts";
import type { PolishOptions } from "../../curation/polishing/plan.ts";
import { type CurationRecipe, readCurationRecipe } from "../../curation/recipe.ts";
import { readRules } from "../../curation/rules/rule-set.ts";
import { type ProjectStatus, projectStatus } from "../../curation/status.ts";
import type { CurationStore } from "../../curation/store.ts";
import { printable } from "../../files/errors.ts";
import { type CommandContext, Interrupted } from "../context.ts";
import { answerOptions, settingsOption } from "../options.ts";
import { formatCount } from "../text.ts";
import { createProject, defaultPromptStyle, describeProject, describeText } from "./describe.ts";
import { exportProject, exportText } from "./export.ts";
import { filterProject, filterText } from "./filter.ts";
import { polishProject, polishTable, readPrompt } from "./polish.ts";

interface RunFlags {
  readonly set: readonly string[];
  readonly json?: boolean;
}

export function defineRun(command: Command, context: CommandContext): void {
  command
    .description(
      "Run the steps that need no reviewer: describe, polish, filter, and the export of what was kept. Each continues where it " +
        "stopped: run the same command again after an interruption, and after the review.",
    )
    .argument("<recipe>", "a YAML file, for example recipes/curate.yaml")
    .addOption(settingsOption())
    .option("--json", "print the reports of the steps and the status of the project as one JSON object")
    .addHelpText(
      "after",
      `
Examples:
  minigpt4 curate run recipes/curate.yaml
  minigpt4 curate run recipes/curate.yaml --set images.path=photos --set images.count=500 --set polish=null
  minigpt4 curate run recipes/curate.yaml --set export.unreviewed=true`,
    )
    .action((path, flags) => run(context, path, flags));
}

async function run(context: CommandContext, path: string, { set, json = false }: RunFlags): Promise<void> {
  const { recipe, deprecated } = await readCurationRecipe(path, set);
  for (const message of deprecated) context.warnOnce(`warning: ${path}: ${message}`);
  const signal = context.untilInterrupted();
  // Problems of a later step are found before the first one.
  const [rules, polish] = await Promise.all([readRules(recipe.filter.rules), polishOptions(recipe, context.env)]);
  const reports: Record<string, unknown> = {};
  const note = (step: string, report: object, text: string) => {
    reports[step] = report;
    if (!json) context.print(`${step}\n${text.replace(/^/gm, "  ")}`);
  };
  const described = await describeOptions(recipe);
  const store = await createProject(context, recipe.images.path, { ...recipe.images, project: recipe.project, signal });
  try {
    const { block_size: size, ...model } = recipe.describe;
    const blockSize = size && (`${size}` as const);
    const description = await describeProject(context, store, { ...described, model: { ...model, blockSize }, signal });
    note("describe", description, describeText(description));
    let isComplete = true;
    if (polish) {
      const report = await polishProject(context, store, { ...polish, signal });
      note("polish", report, polishTable(report));
      if (signal.aborted) throw new Interrupted("Interrupted");
      isComplete = report.stopped === undefined;
    }
    // Rules are applied only when all texts are polished.
    if (isComplete) {
      const report = await filterProject(context, store, { rules, signal });
      note("filter", { ...report, dropped: report.dropped.length }, filterText(report));
      const exported = await exportKept(context, store, { recipe: recipe.export, signal });
      if (exported) note("export", exported, exportText(exported));
    }
    const status = projectStatus(store);
    const next = isComplete
      ? nextStep(status, recipe)
      : "Polishing is not finished; run the same command again to continue";
    context.print(json ? JSON.stringify({ ...reports, status, next }) : `\n${next}`);
  } finally {
    store.close();
  }
}

async function describeOptions({ describe }: CurationRecipe) {
  const { prompt, continues, parallel, tries, short_answer: shortAnswer, beams, temperature, seed } = describe;
  return {
    promptStyle: prompt ?? (await defaultPromptStyle(modelPath(describe.model))),
    decoding: answerOptions({
      ...describe,
      beams,
      temperature,
      seed,
      topP: describe.top_p,
      topK: describe.top_k,
      repetitionPenalty: describe.repetition_penalty,
      maxNewTokens: describe.max_new_tokens,
    }),
    continues,
    parallel,
    tries,
    shortAnswer,
  };
}

/** @throws Error if the prompt cannot be read or the service is missing */
async function polishOptions({ polish }: CurationRecipe, env: NodeJS.ProcessEnv): Promise<PolishOptions | undefined> {
  if (!polish) return undefined;
  const { base_url: baseUrl = env.OPENAI_BASE_URL, timeout, model, temperature, ...more } = polish;
  if (!baseUrl)
    throw new Error(
      "The service that polishes is missing; set polish.base_url, or remove the step with --set polish=null",
    );
  const { parallel, retries, budget } = more;
  return {
    baseUrl,
    model,
    temperature,
    parallel,
    retries,
    budget,
    maxTokens: more.max_tokens,
    apiKey: env[more.api_key_env]?.trim() || undefined,
    apiKeyName: more.api_key_env,
    prompt: more.prompt_file === undefined ? undefined : await readPrompt(more.prompt_file),
    timeout: timeout === undefined ? undefined : Math.round(timeout * 1000),
  };
}

/** Exports if the recipe says so and there is something to export. */
async function exportKept(
  context: CommandContext,
  store: CurationStore,
  { recipe, signal }: { readonly recipe: CurationRecipe["export"]; readonly signal: AbortSignal },
): Promise<ExportReport | undefined> {
  if (!recipe) return undefined;
  const { folder, unreviewed, overwrite } = recipe;
  const { kept, open } = projectStatus(store).standing;
  if (kept + (unreviewed ? open : 0) === 0) return undefined;
  return exportProject(context, store, folder, { unreviewed, overwrite, signal });
}

/** What to do next. */
function nextStep({ standing }: ProjectStatus, { project, export: target }: CurationRecipe): string {
  if (standing.open > 0 && !target?.unreviewed) {
    const then = target ? ", then run the same command again" : "";
    return `Review ${formatCount(standing.open)} texts: minigpt4 curate review --project ${printable(project)}${then}`;
  }
  if (!target) return `Everything is reviewed: minigpt4 curate export FOLDER --project ${printable(project)}`;
  if (standing.kept + standing.open === 0) return "No text is left; minigpt4 curate status shows why";
  return `Train on it: minigpt4 train recipes/stage2.yaml --set datasets.cc_sbu_align.path=${printable(target.folder)}`;
}
