/** `minigpt4 curate polish`: a chat model rewrites the descriptions. */
import { readFile } from "node:fs/promises";
import type { Command } from "commander";
import { PolishError, type PolishOptions, type PolishReport, paragraphPlace } from "../../curation/polishing/plan.ts";
import { estimatePolish, type PolishEstimate, polish } from "../../curation/polishing/polish.ts";
import { CurationStore } from "../../curation/store.ts";
import {
  Interrupted,
  integerBetween,
  numberBetween,
  type ProjectFlags,
  projectOption,
  untilInterrupted,
} from "../options.ts";
import { type CountDisplay, countDisplay } from "../progress.ts";
import { formatCount, formatDuration, printable } from "../text.ts";

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

export function registerPolish(curate: Command): void {
  curate
    .command("polish")
    .summary("let a chat model rewrite the descriptions")
    .description(
      "Rewrites each described text through a service with OpenAI's chat API, a local one or a remote one. Each answer is kept as soon as " +
        "it is there: after Ctrl-C, or whatever else ends it, the same command goes on. A key comes from the environment only.",
    )
    .addOption(projectOption())
    .option("--base-url <url>", "of the service; default: OPENAI_BASE_URL of the environment")
    .option("--model <name>", "default: the one that the service has, if it has only one")
    .option("--api-key-env <name>", "the environment variable that holds the key", "OPENAI_API_KEY")
    .option(
      "--prompt-file <file>",
      `instead of the paper's prompt; the text follows it, or stands where it says ${paragraphPlace}`,
    )
    .option("--temperature <t>", "0 takes what is likeliest", numberBetween(0, 2), 0)
    .option("--max-tokens <n>", "longest answer; default: 1.5 times the text's length", integerBetween(1, 1_000_000))
    .option("--parallel <n>", "requests at once", integerBetween(1, 256), 4)
    .option("--retries <n>", "how often a request that fails is sent again", integerBetween(0, 100), 5)
    .option("--timeout <seconds>", "longest time for an answer", numberBetween(0.1, 300), 120)
    .option(
      "--budget <tokens>",
      "most tokens that polishing may cost the project, all runs together",
      integerBetween(1, Number.MAX_SAFE_INTEGER),
    )
    .option("--price-input <price>", "of a million tokens of prompts", numberBetween(0, 1e6))
    .option("--price-output <price>", "of a million tokens of answers", numberBetween(0, 1e6))
    .option("--limit <n>", "only the first n texts", integerBetween(1, Number.MAX_SAFE_INTEGER))
    .option("--again", "also polish polished texts anew, unless a person has changed them")
    .option("--retry-failed", "also try those texts again that were left because no answer was of use")
    .option("--dry-run", "say how many texts and about how many tokens there are, and ask nobody")
    .option("--json", "print the numbers as JSON")
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
    .action(run);
}

async function run(flags: PolishFlags): Promise<void> {
  const { baseUrl = process.env.OPENAI_BASE_URL } = flags;
  const prompt = flags.promptFile === undefined ? undefined : await readPrompt(flags.promptFile);
  const store = CurationStore.open(flags.project);
  try {
    const asked = { ...optionsOf(flags), prompt };
    if (flags.dryRun) {
      const estimate = estimatePolish(store, asked);
      console.log(flags.json ? JSON.stringify(estimate) : told(estimate));
      return;
    }
    if (!baseUrl) {
      throw new Error(
        "Which service polishes? Say it with --base-url, for example http://127.0.0.1:8000/v1 for `minigpt4 serve`",
      );
    }
    await polishAndTell(store, { ...asked, baseUrl }, flags.json ?? false);
  } finally {
    store.close();
  }
}

async function polishAndTell(store: CurationStore, options: PolishOptions, json: boolean): Promise<void> {
  const signal = untilInterrupted();
  const tell = (report: PolishReport) => console.log(json ? JSON.stringify(report) : polishTable(report));
  try {
    tell(await polishProject(store, options, signal));
  } catch (error) {
    if (error instanceof PolishError) tell(error.report);
    throw error;
  }
  if (signal.aborted) throw new Interrupted("Interrupted");
}

/** Polishes, and shows how far it is. @throws as `polish` */
export async function polishProject(
  store: CurationStore,
  options: PolishOptions,
  signal: AbortSignal,
): Promise<PolishReport> {
  const display = countDisplay("texts polished");
  try {
    return await polish(store, { ...options, ...shownOn(display) }, signal);
  } finally {
    display.stop();
  }
}

function optionsOf(flags: PolishFlags): Omit<PolishOptions, "baseUrl"> {
  const { priceInput, priceOutput, apiKeyEnv, timeout } = flags;
  const { model, temperature, maxTokens, parallel, retries, budget, limit, again, retryFailed } = flags;
  const priced = priceInput !== undefined || priceOutput !== undefined;
  return {
    ...{ model, temperature, maxTokens, parallel, retries, budget, limit, again, retryFailed },
    apiKey: process.env[apiKeyEnv]?.trim() || undefined,
    apiKeyName: apiKeyEnv,
    timeout: Math.round(timeout * 1000),
    ...(priced && { prices: { input: priceInput ?? 0, output: priceOutput ?? 0 } }),
  };
}

export async function readPrompt(path: string): Promise<string> {
  const prompt = (await readFile(path, "utf8")).trim();
  if (prompt === "") throw new Error(`${path}, the prompt, is empty`);
  return prompt;
}

/** Pauses shorter than this are not worth a line, in milliseconds. */
const notedPause = 5000;

function shownOn(display: CountDisplay): Pick<PolishOptions, "onProgress" | "onPause"> {
  let pausedUntil = 0;
  return {
    onProgress({ done, total, tokens, cost }) {
      const costs = cost === undefined ? "" : `, cost ${formatCost(cost)}`;
      display.update(done, total, `${formatCount(tokens)} tokens${costs}`);
    },
    onPause(milliseconds) {
      const until = performance.now() + milliseconds;
      // Those who were asked to wait at the same time say it once.
      if (milliseconds >= notedPause && until > pausedUntil + 1000) {
        display.say(`The service asks to wait ${formatDuration(milliseconds / 1000)}`);
      }
      pausedUntil = Math.max(pausedUntil, until);
    },
  };
}

function formatCost(cost: number): string {
  return cost >= 1 ? cost.toFixed(2) : cost.toPrecision(2);
}

function told({ texts, givenUpBefore, promptTokens, completionTokens, cost, projectTokens }: PolishEstimate): string {
  return lines([
    ["texts to polish", formatCount(texts)],
    ["left by an earlier run", givenUpBefore > 0 && `${formatCount(givenUpBefore)} (--retry-failed tries them again)`],
    ["tokens, about", `${formatCount(promptTokens)} of prompts, ${formatCount(completionTokens)} of answers`],
    ["cost, about", cost !== undefined && formatCost(cost)],
    ["tokens of the project so far", formatCount(projectTokens)],
  ]);
}

/** What was done, for people. */
export function polishTable(report: PolishReport): string {
  const { promptTokens, completionTokens, cost, givenUpBefore, stopped } = report;
  const reasons = Object.entries(report.reasons).map(([reason, times]) => `${reason} ${formatCount(times)}`);
  const some = (count: number, note: string) => count > 0 && `${formatCount(count)} (${note})`;
  return lines([
    ["polished", `${formatCount(report.polished)} of ${formatCount(report.texts)}, by ${printable(report.model)}`],
    ["  as it was", report.unchanged > 0 && formatCount(report.unchanged)],
    ["no answer of use", some(report.notTaken, "left as they are; --retry-failed tries them again")],
    ["request failed", some(report.failed, "the next run tries them again")],
    ["changed meanwhile", some(report.changedMeanwhile, "not touched")],
    ["left by an earlier run", some(givenUpBefore, "--retry-failed tries them again")],
    ["answers not taken", reasons.length > 0 && reasons.join(", ")],
    ["tokens", `${formatCount(promptTokens)} of prompts, ${formatCount(completionTokens)} of answers`],
    ["cost", cost !== undefined && formatCost(cost)],
    ["tokens of the project", formatCount(report.projectTokens)],
    ["time", formatDuration(report.seconds)],
    ["stopped", stopped === "budget" && "before the budget would be exceeded; --budget sets another"],
  ]);
}

/** Two columns; lines that say nothing are left out. */
function lines(rows: readonly (readonly [string, string | false])[]): string {
  return rows.flatMap(([name, value]) => (value === false ? [] : [`${name.padEnd(30)}${value}`])).join("\n");
}
