/** `minigpt4 curate polish`: rewrites the descriptions with a chat model. */
import { readFile } from "node:fs/promises";
import type { Command } from "commander";
import { PolishError, type PolishOptions, type PolishReport, paragraphPlace } from "../../curation/polishing/plan.ts";
import { estimatePolish, type PolishEstimate, polish } from "../../curation/polishing/polish.ts";
import { CurationStore } from "../../curation/store.ts";
import { printable } from "../../files/errors.ts";
import { type CommandContext, Interrupted } from "../context.ts";
import { integerBetween, numberBetween, type ProjectFlags, projectOption } from "../options.ts";
import { ProgressDisplay } from "../progress.ts";
import { formatCount, formatDuration } from "../text.ts";

interface PolishFlags extends ProjectFlags {
  readonly baseUrl?: string;
  readonly model?: string;
  readonly apiKeyEnv: string;
  readonly promptFile?: string;
  readonly temperature: number;
  readonly maxTokens?: number;
  readonly parallel: number;
  readonly retries: number;
  readonly timeout: number;
  readonly budget?: number;
  readonly priceInput?: number;
  readonly priceOutput?: number;
  readonly limit?: number;
  readonly again?: boolean;
  readonly retryFailed?: boolean;
  readonly dryRun?: boolean;
  readonly json?: boolean;
}

export function definePolish(command: Command, context: CommandContext): void {
  command
    .description(
      "Rewrite each description with a local or remote service that has an OpenAI-compatible chat API. Answers are saved as they " +
        "arrive; run the same command again to continue. The API key is read from the environment only.",
    )
    .addOption(projectOption())
    .option("--base-url <url>", "base URL of the service (default: the environment variable OPENAI_BASE_URL)")
    .option("--model <name>", "model of the service (default: its only model)")
    .option("--api-key-env <name>", "environment variable with the API key", "OPENAI_API_KEY")
    .option(
      "--prompt-file <file>",
      `file with the prompt; the text replaces ${paragraphPlace} or follows the prompt (default: the paper's prompt)`,
    )
    .option("--temperature <t>", "sampling temperature; 0 is greedy", numberBetween(0, 2), 0)
    .option(
      "--max-tokens <n>",
      "maximum length of an answer in tokens (default: 1.5 times the text)",
      integerBetween(1, 1_000_000),
    )
    .option("--parallel <n>", "number of concurrent requests", integerBetween(1, 256), 4)
    .option("--retries <n>", "number of retries of a failed request", integerBetween(0, 100), 5)
    .option("--timeout <seconds>", "time limit of a request", numberBetween(0.1, 300), 120)
    .option(
      "--budget <tokens>",
      "maximum number of tokens for the project, over all runs (default: unlimited)",
      integerBetween(1, Number.MAX_SAFE_INTEGER),
    )
    .option("--price-input <price>", "price of a million prompt tokens, to print the cost", numberBetween(0, 1e6))
    .option("--price-output <price>", "price of a million output tokens, to print the cost", numberBetween(0, 1e6))
    .option("--limit <n>", "polish only the first n texts (default: all)", integerBetween(1, Number.MAX_SAFE_INTEGER))
    .option("--again", "polish polished texts again, unless a reviewer has edited them")
    .option("--retry-failed", "retry texts that had no usable answer")
    .option("--dry-run", "print the number of texts and the estimated number of tokens without sending requests")
    .option("--json", "print the report as one JSON object")
    .addHelpText(
      "after",
      `
Examples:
  minigpt4 serve &
  minigpt4 curate polish --base-url http://127.0.0.1:8000/v1

  minigpt4 curate polish --base-url http://127.0.0.1:11434/v1 --model llama3.2 --parallel 1
  minigpt4 curate polish --base-url https://api.openai.com/v1 --model gpt-4o-mini --limit 20 \\
    --price-input 0.15 --price-output 0.60 --budget 2000000`,
    )
    .action((flags) => run(context, flags));
}

async function run(context: CommandContext, flags: PolishFlags): Promise<void> {
  const { baseUrl = context.env.OPENAI_BASE_URL } = flags;
  const prompt = flags.promptFile === undefined ? undefined : await readPrompt(flags.promptFile);
  const store = CurationStore.open(flags.project);
  try {
    const options = { ...polishOptions(flags, context.env), prompt };
    if (flags.dryRun) {
      const estimate = estimatePolish(store, options);
      context.print(flags.json ? JSON.stringify(estimate) : estimateTable(estimate));
      return;
    }
    if (!baseUrl) {
      throw new Error(
        "The service that polishes is missing; pass --base-url, for example http://127.0.0.1:8000/v1 for `minigpt4 serve`",
      );
    }
    await polishAndReport(context, store, { ...options, baseUrl, json: flags.json });
  } finally {
    store.close();
  }
}

async function polishAndReport(
  context: CommandContext,
  store: CurationStore,
  { json, ...options }: PolishOptions & { readonly json?: boolean },
): Promise<void> {
  const signal = context.untilInterrupted();
  const print = (report: PolishReport) => context.print(json ? JSON.stringify(report) : polishTable(report));
  try {
    print(await polishProject(context, store, { ...options, signal }));
  } catch (error) {
    if (error instanceof PolishError) print(error.report);
    throw error;
  }
  if (signal.aborted) throw new Interrupted("Interrupted");
}

/** Polishes with a progress display. @throws as `polish` */
export async function polishProject(
  context: CommandContext,
  store: CurationStore,
  { signal, ...options }: PolishOptions & { readonly signal: AbortSignal },
): Promise<PolishReport> {
  const display = new ProgressDisplay(context);
  try {
    return await polish(store, { ...options, ...showPolish(display) }, signal);
  } finally {
    display.stop();
  }
}

function polishOptions(flags: PolishFlags, env: NodeJS.ProcessEnv): Omit<PolishOptions, "baseUrl"> {
  const { priceInput, priceOutput, apiKeyEnv, timeout } = flags;
  const { model, temperature, maxTokens, parallel, retries, budget, limit, again, retryFailed } = flags;
  const hasPrices = priceInput !== undefined || priceOutput !== undefined;
  return {
    model,
    temperature,
    maxTokens,
    parallel,
    retries,
    budget,
    limit,
    again,
    retryFailed,
    apiKey: env[apiKeyEnv]?.trim() || undefined,
    apiKeyName: apiKeyEnv,
    timeout: Math.round(timeout * 1000),
    prices: hasPrices ? { input: priceInput ?? 0, output: priceOutput ?? 0 } : undefined,
  };
}

export async function readPrompt(path: string): Promise<string> {
  const prompt = (await readFile(path, "utf8")).trim();
  if (prompt === "") throw new Error(`The prompt file ${path} is empty`);
  return prompt;
}

/** Pauses shorter than this are not reported, in milliseconds. */
const reportedPause = 5000;

function showPolish(display: ProgressDisplay): Pick<PolishOptions, "onProgress" | "onPause"> {
  let pausedUntil = 0;
  const report = display.task("texts polished");
  return {
    onProgress({ done, total, tokens, cost }) {
      const costs = cost === undefined ? "" : `, cost ${formatCost(cost)}`;
      report(done, total, `${formatCount(tokens)} tokens${costs}`);
    },
    onPause(milliseconds) {
      const until = performance.now() + milliseconds;
      // Report a pause once, although every concurrent request calls this.
      if (milliseconds >= reportedPause && until > pausedUntil + 1000) {
        display.message(`Rate limited by the service; waiting ${formatDuration(milliseconds / 1000)}`);
      }
      pausedUntil = Math.max(pausedUntil, until);
    },
  };
}

function formatCost(cost: number): string {
  return cost >= 1 ? cost.toFixed(2) : cost.toPrecision(2);
}

function estimateTable({
  texts,
  givenUpBefore,
  promptTokens,
  completionTokens,
  cost,
  projectTokens,
}: PolishEstimate): string {
  return table([
    ["texts to polish", formatCount(texts)],
    [
      "skipped since an earlier run",
      givenUpBefore > 0 && `${formatCount(givenUpBefore)} (retry them with --retry-failed)`,
    ],
    ["tokens, estimated", `${formatCount(promptTokens)} prompt, ${formatCount(completionTokens)} output`],
    ["cost, estimated", cost !== undefined && formatCost(cost)],
    ["tokens used by the project", formatCount(projectTokens)],
  ]);
}

/** The report as a table. */
export function polishTable(report: PolishReport): string {
  const { promptTokens, completionTokens, cost, givenUpBefore, stopped } = report;
  const reasons = Object.entries(report.reasons).map(([reason, times]) => `${reason} ${formatCount(times)}`);
  const some = (count: number, note: string) => count > 0 && `${formatCount(count)} (${note})`;
  return table([
    ["polished", `${formatCount(report.polished)} of ${formatCount(report.texts)}, by ${printable(report.model)}`],
    ["  unchanged", report.unchanged > 0 && formatCount(report.unchanged)],
    ["no usable answer", some(report.notTaken, "kept as they were; retry them with --retry-failed")],
    ["request failed", some(report.failed, "the next run retries them")],
    ["edited meanwhile", some(report.changedMeanwhile, "not changed")],
    ["skipped since an earlier run", some(givenUpBefore, "retry them with --retry-failed")],
    ["rejected answers", reasons.length > 0 && reasons.join(", ")],
    ["tokens", `${formatCount(promptTokens)} prompt, ${formatCount(completionTokens)} output`],
    ["cost", cost !== undefined && formatCost(cost)],
    ["tokens used by the project", formatCount(report.projectTokens)],
    ["time", formatDuration(report.seconds)],
    ["stopped", stopped === "budget" && "before exceeding the budget; raise it with --budget"],
  ]);
}

/** Two columns; rows without a value are omitted. */
function table(rows: readonly (readonly [string, string | false])[]): string {
  return rows.flatMap(([name, value]) => (value === false ? [] : [`${name.padEnd(30)}${value}`])).join("\n");
}
