/** `minigpt4 serve`: serves an OpenAI-compatible API and a web page. */
import { type Command, InvalidArgumentError } from "commander";
import type { CommandContext } from "./context.ts";
import { aborted, allowedHosts, graceMs, pageFolder, warnIfOpen } from "./listening.ts";
import {
  addDeprecatedOption,
  addModelOptions,
  integerBetween,
  loadModel,
  type ModelFlags,
  numberBetween,
} from "./options.ts";

interface ServeFlags extends ModelFlags {
  readonly host: string;
  readonly port: number;
  readonly maxConcurrent: number;
  readonly maxQueue: number;
  readonly timeout: number;
  readonly maxBody: number;
  readonly maxPixels: number;
  readonly maxImages: number;
  readonly allowRemoteImages?: boolean;
  readonly allowHost?: readonly string[];
  readonly cors?: readonly string[];
  readonly runs: string;
  readonly review?: string;
  readonly apiKeysFile?: string;
  readonly quiet?: boolean;
}

export function defineServe(command: Command, context: CommandContext): void {
  command
    .description(
      "Serve an OpenAI-compatible API (chat completions, embeddings, models) and a web page to chat with.\n" +
        "API keys come from the environment variable MINIGPT4_API_KEYS (comma separated) or from a file.\n" +
        "Ctrl-C waits for running requests; a second Ctrl-C exits immediately.",
    )
    .option("--host <host>", "address to listen on; 0.0.0.0 accepts connections from other machines", "127.0.0.1")
    .option("--port <port>", "port to listen on; 0 picks a free one", integerBetween(0, 65535), 8000)
    .option(
      "--max-concurrent <n>",
      "maximum number of requests that are generated at the same time",
      integerBetween(1, 256),
      8,
    )
    .option(
      "--max-queue <n>",
      "maximum number of waiting requests; more are rejected with status 429",
      integerBetween(0, 100_000),
      64,
    )
    .option("--timeout <seconds>", "time limit of a request", numberBetween(1, 86_400), 300)
    .option("--max-body <MB>", "maximum size of a request, including images", numberBetween(0.001, 256), 32)
    .option(
      "--max-pixels <n>",
      "maximum number of pixels in all images of a request",
      integerBetween(1, 1_000_000_000),
      50_000_000,
    )
    .option("--max-images <n>", "maximum number of images per request", integerBetween(1, 1000), 16)
    .option("--allow-remote-images", "fetch images from http and https URLs in requests")
    .option("--allow-host <name...>", "host names of the server behind a proxy, for example ai.example.org")
    .option("--cors <origin...>", "origins of web pages that may call the API, for example https://example.org", origin)
    .option("--runs <folder>", "folder of training runs, whose curves the page shows", "runs")
    .option("--review <file>", "curation project to review on the page")
    .option("--api-keys-file <file>", "file with API keys, one per line")
    .option("--quiet", "log only warnings and errors");
  addDeprecatedOption(command, context, { flags: "--max-pictures <n>", replacement: "--max-images" });
  addDeprecatedOption(command, context, { flags: "--allow-remote-pictures", replacement: "--allow-remote-images" });
  addModelOptions(command, context)
    .addHelpText(
      "after",
      `
Examples:
  minigpt4 serve
  minigpt4 serve --port 8123 --model runs/mine

  curl http://127.0.0.1:8000/v1/chat/completions -H "content-type: application/json" -d '{
    "messages": [{"role": "user", "content": "Hello! What can you do?"}]}'

  (printf '{"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,'
   base64 < cat.jpg | tr -d '\\n'
   printf '"}}]}]}') | curl http://127.0.0.1:8000/v1/chat/completions -H "content-type: application/json" -d @-`,
    )
    .action((flags) => serve(context, flags));
}

async function serve(context: CommandContext, flags: ServeFlags): Promise<void> {
  const [{ pino }, { CurationStore }, { readApiKeys }, { startServer }] = await Promise.all([
    import("pino"),
    import("../curation/store.ts"),
    import("../server/api-keys.ts"),
    import("../server/serve.ts"),
  ]);
  const stop = context.untilInterrupted("SIGINT", "SIGTERM");
  const apiKeys = await readApiKeys(context.env, flags.apiKeysFile);
  warnIfOpen(context, flags.host, apiKeys);
  const review = flags.review === undefined ? undefined : CurationStore.open(flags.review);
  const { engine } = await loadModel(context, flags, {
    signal: stop,
    maxBatch: flags.maxConcurrent,
    images: { maxPixels: flags.maxPixels },
  });
  try {
    const server = await startServer({
      engine,
      host: flags.host,
      port: flags.port,
      apiKeys,
      hosts: allowedHosts(flags, apiKeys),
      corsOrigins: flags.cors,
      maxConcurrent: flags.maxConcurrent,
      maxQueue: flags.maxQueue,
      timeoutSeconds: flags.timeout,
      maxBodyBytes: Math.round(flags.maxBody * 1e6),
      maxPixels: flags.maxPixels,
      maxImages: flags.maxImages,
      allowRemoteImages: flags.allowRemoteImages,
      runsFolder: flags.runs,
      review,
      pageFolder,
      log: pino({ level: flags.quiet ? "warn" : "info", base: null }, context.stderr),
    });
    context.print(`Serving ${engine.model.name} at ${server.url} (API: ${server.url}/v1). Press Ctrl-C to stop.`);
    await aborted(stop);
    context.printError("Waiting for running requests. Press Ctrl-C again to exit immediately.");
    await server.close(graceMs);
  } finally {
    await engine.close();
    review?.close();
  }
}

function origin(text: string, previous: readonly string[] = []): string[] {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (text === "*" || url?.origin === text) return [...previous, text];
  throw new InvalidArgumentError("Expected an origin such as https://example.org, without a path, or *.");
}
