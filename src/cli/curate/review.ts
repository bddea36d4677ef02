/** `minigpt4 curate review`: a page on which persons keep, edit and drop pairs of image and text. */
import type { Command } from "commander";
import open from "open";
import { CurationStore } from "../../curation/store.ts";
import { readApiKeys } from "../../server/api-keys.ts";
import { startReviewServer } from "../../server/serve.ts";
import { aborted, graceMs, hostsOf, pageFolder, untilStopped, warnIfOpen } from "../listening.ts";
import { integerBetween, type ProjectFlags, projectOption } from "../options.ts";

interface ReviewFlags extends ProjectFlags {
  readonly host: string;
  readonly port: number;
  readonly open?: boolean;
  readonly allowHost?: readonly string[];
  readonly apiKeysFile?: string;
}

export function registerReview(curate: Command): void {
  curate
    .command("review")
    .summary("look at images and texts in the browser: keep, edit or drop them")
    .description(
      "Serves a page on which one or several persons go through the pairs of a project. It needs no model, and may be open while the " +
        "other steps run. Every decision is in the project at once; Ctrl-C ends the server.\n" +
        "Keys that reviewers must enter come from the environment variable MINIGPT4_API_KEYS (comma separated), or from a file.",
    )
    .addOption(projectOption())
    .option("--host <host>", "address to listen at; 0.0.0.0 is reached from other machines", "127.0.0.1")
    .option("--port <port>", "0 takes a free one", integerBetween(0, 65535), 8000)
    .option("--open", "open the page in the browser")
    .option("--allow-host <name...>", "names that the server goes by behind a proxy, for example review.example.org")
    .option("--api-keys-file <file>", "keys that reviewers may use, one a line")
    .addHelpText(
      "after",
      `
Examples:
  minigpt4 curate review --open
  minigpt4 curate review --project cats.db --port 8123
  MINIGPT4_API_KEYS=$(openssl rand -hex 24) minigpt4 curate review --host 0.0.0.0

\`minigpt4 serve --review curation.db\` has the same page beside the chat.`,
    )
    .action(review);
}

async function review(flags: ReviewFlags): Promise<void> {
  const stop = untilStopped();
  const apiKeys = await readApiKeys(process.env, flags.apiKeysFile);
  warnIfOpen(flags.host, apiKeys);
  const store = CurationStore.open(flags.project);
  try {
    const { host, port } = flags;
    const server = await startReviewServer({ store, host, port, apiKeys, ...hostsOf(flags, apiKeys), pageFolder });
    const address = `${server.url}/#/review`;
    console.log(`The pairs of ${flags.project} are reviewed at ${address}. Ctrl-C stops it.`);
    if (flags.open) {
      await open(address).catch((problem: Error) => {
        console.error(`warning: no browser could be opened (${problem.message}); open the address yourself`);
      });
    }
    await aborted(stop);
    await server.close(graceMs);
  } finally {
    store.close();
  }
}
