/** `minigpt4 curate review`: serves a page on which reviewers keep, edit or drop pairs of image and text. */
import type { Command } from "commander";
import open from "open";
import { CurationStore } from "../../curation/store.ts";
import { readApiKeys } from "../../server/api-keys.ts";
import { startReviewServer } from "../../server/serve.ts";
import type { CommandContext } from "../context.ts";
import { aborted, allowedHosts, graceMs, pageFolder, warnIfOpen } from "../listening.ts";
import { integerBetween, type ProjectFlags, projectOption } from "../options.ts";

interface ReviewFlags extends ProjectFlags {
  readonly host: string;
  readonly port: number;
  readonly open?: boolean;
  readonly allowHost?: readonly string[];
  readonly apiKeysFile?: string;
}

export function defineReview(command: Command, context: CommandContext): void {
  command
    .description(
      "Serve a page on which one or more reviewers keep, edit or drop the pairs of a project. It needs no model, and can stay " +
        "open while other steps run. Decisions are saved immediately; Ctrl-C stops the server.\n" +
        "Keys of reviewers come from the environment variable MINIGPT4_API_KEYS (comma separated) or from a file.",
    )
    .addOption(projectOption())
    .option("--host <host>", "address to listen on; 0.0.0.0 accepts connections from other machines", "127.0.0.1")
    .option("--port <port>", "port to listen on; 0 picks a free one", integerBetween(0, 65535), 8000)
    .option("--open", "open the page in the browser")
    .option("--allow-host <name...>", "host names of the server behind a proxy, for example review.example.org")
    .option("--api-keys-file <file>", "file with keys of reviewers, one per line")
    .addHelpText(
      "after",
      `
Examples:
  minigpt4 curate review --open
  minigpt4 curate review --project cats.db --port 8123
  MINIGPT4_API_KEYS=$(openssl rand -hex 24) minigpt4 curate review --host 0.0.0.0

\`minigpt4 serve --review curation.db\` serves the same page next to the chat.`,
    )
    .action((flags) => review(context, flags));
}

async function review(context: CommandContext, flags: ReviewFlags): Promise<void> {
  const stop = context.untilInterrupted("SIGINT", "SIGTERM");
  const apiKeys = await readApiKeys(context.env, flags.apiKeysFile);
  warnIfOpen(context, flags.host, apiKeys);
  const store = CurationStore.open(flags.project);
  try {
    const { host, port } = flags;
    const server = await startReviewServer({
      store,
      host,
      port,
      apiKeys,
      hosts: allowedHosts(flags, apiKeys),
      pageFolder,
    });
    const address = `${server.url}/#/review`;
    context.print(`Review ${flags.project} at ${address}. Press Ctrl-C to stop.`);
    if (flags.open) {
      await open(address).catch((problem: Error) => {
        context.printError(`warning: could not open a browser (${problem.message}); open the address yourself`);
      });
    }
    await aborted(stop);
    await server.close(graceMs);
  } finally {
    store.close();
  }
}
