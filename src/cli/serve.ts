/** `minigpt4 serve`: an HTTP server that clients of OpenAI's API can ask, and a page. */
import { type Command, InvalidArgumentError } from "commander";
import { pino } from "pino";
import { CurationStore } from "../curation/store.ts";
import { readApiKeys } from "../server/api-keys.ts";
import { startServer } from "../server/serve.ts";
import { aborted, graceMs, hostsOf, pageFolder, untilStopped, warnIfOpen } from "./listening.ts";
import { addModelOptions, integerBetween, loadModel, type ModelFlags, numberBetween } from "./options.ts";

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

export function registerServe(program: Command): void {
  const command = program
    .command("serve")
    .summary("answer over HTTP, as OpenAI's API does, with a page")
    .description(
      "Answers over HTTP as OpenAI's API does (chat completions, embeddings, models), and serves a page to chat with.\n" +
        "Keys that clients must send come from the environment variable MINIGPT4_API_KEYS (comma separated), or from a file.\n" +
        "Ctrl-C lets running answers end first; a second Ctrl-C ends at once.",
    )
    .option("--host <host>", "address to listen at; 0.0.0.0 is reached from other machines", "127.0.0.1")
    .option("--port <port>", "0 takes a free one", integerBetween(0, 65535), 8000)
    .option("--max-concurrent <n>", "questions that are answered at once", integerBetween(1, 256), 8)
    .option("--max-queue <n>", "questions that wait; more get status 429", integerBetween(0, 100_000), 64)
    .option("--timeout <seconds>", "longest time for an answer", numberBetween(1, 86_400), 300)
    .option("--max-body <MB>", "largest request, images included", numberBetween(0.001, 256), 32)
    .option(
      "--max-pixels <n>",
      "most pixels of all images of a request together",
      integerBetween(1, 1_000_000_000),
      50_000_000,
    )
    .option("--max-images <n>", "most images of a request", integerBetween(1, 1000), 16)
    .option("--allow-remote-images", "fetch images that are given by http and https addresses")
    .option("--allow-host <name...>", "names that the server goes by behind a proxy, for example ai.example.org")
    .option("--cors <origin...>", "pages of these origins may ask, for example https://example.org", origin)
    .option("--runs <folder>", "the folder that training runs lie in, whose curves the page shows", "runs")
    .option("--review <file>", "a curation project whose pairs the page reviews")
    .option("--api-keys-file <file>", "keys that clients may use, one a line")
    .option("--quiet", "log only warnings and errors");
  addModelOptions(command)
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
    .action(serve);
}

async function serve(flags: ServeFlags): Promise<void> {
  const stop = untilStopped();
  const apiKeys = await readApiKeys(process.env, flags.apiKeysFile);
  warnIfOpen(flags.host, apiKeys);
  const review = flags.review === undefined ? undefined : CurationStore.open(flags.review);
  const { engine } = await loadModel(flags, stop, {
    maxBatch: flags.maxConcurrent,
    images: { maxPixels: flags.maxPixels },
  });
  try {
    const server = await startServer({
      engine,
      host: flags.host,
      port: flags.port,
      apiKeys,
      ...hostsOf(flags, apiKeys),
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
      log: pino({ level: flags.quiet ? "warn" : "info", base: null }, pino.destination(2)),
    });
    console.log(`${engine.model.name} answers at ${server.url} (the API at ${server.url}/v1). Ctrl-C stops it.`);
    await aborted(stop);
    console.error("Stopping when the running answers have ended; Ctrl-C again ends at once.");
    await server.close(graceMs);
  } finally {
    await engine.close();
    review?.close();
  }
}

function origin(text: string, before: readonly string[] = []): string[] {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (text === "*" || url?.origin === text) return [...before, text];
  throw new InvalidArgumentError("It should be an origin like https://example.org, without a path, or *.");
}
