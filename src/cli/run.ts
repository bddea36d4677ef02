/** The command line as a function. A command is loaded when it is called, so that help and version are printed quickly. */
import { readFileSync } from "node:fs";
import { Command, CommanderError, InvalidArgumentError } from "commander";
import { describeError, printable } from "../files/errors.ts";
import { CommandContext, type CommandIo, exitCodes, Interrupted } from "./context.ts";
import { addCommands, type LazyCommand } from "./lazy-commands.ts";

const commands: readonly LazyCommand[] = [
  {
    name: "describe",
    summary: "describe images",
    load: async () => (await import("./describe.ts")).defineDescribe,
  },
  {
    name: "chat",
    summary: "chat about images",
    load: async () => (await import("./chat.ts")).defineChat,
  },
  {
    name: "search",
    summary: "find images by text or by a similar image",
    load: async () => (await import("./search.ts")).defineSearch,
  },
  {
    name: "serve",
    summary: "serve an OpenAI-compatible API and a web page",
    load: async () => (await import("./serve.ts")).defineServe,
  },
  {
    name: "mcp",
    summary: "serve the model to assistants and editors over the Model Context Protocol",
    load: async () => (await import("./mcp.ts")).defineMcp,
  },
  {
    name: "pull",
    summary: "download a model: the released MiniGPT-4 or a language model",
    load: async () => (await import("./pull.ts")).definePull,
  },
  {
    name: "import",
    summary: "convert the files of a released MiniGPT-4 to a model folder",
    load: async () => (await import("./import.ts")).defineImport,
  },
  {
    name: "delta",
    summary: "apply a weight delta to its base model (Vicuna v0)",
    load: async () => (await import("./delta.ts")).defineDelta,
  },
  {
    name: "inspect",
    summary: "list the tensors and metadata of a weight file",
    load: async () => (await import("./inspect.ts")).defineInspect,
  },
  {
    name: "doctor",
    summary: "check a model folder and explain how to repair it",
    load: async () => (await import("./doctor.ts")).defineDoctor,
  },
  {
    name: "export",
    summary: "export weights as .pth or .safetensors, or a web page that runs the model",
    load: async () => (await import("./export.ts")).defineExport,
  },
  {
    name: "encode",
    summary: "compute the image features of a recipe before training",
    load: async () => (await import("./encode.ts")).defineEncode,
  },
  {
    name: "cache",
    summary: "list or clear cached image features",
    load: async () => (await import("./cache.ts")).defineCache,
  },
  {
    name: "train",
    summary: "train the connector between image encoder and language model",
    load: async () => (await import("./train.ts")).defineTrain,
  },
  {
    name: "plot",
    summary: "plot the loss of training runs",
    load: async () => (await import("./plot.ts")).definePlot,
  },
  {
    name: "evaluate",
    summary: "measure a model: likelihood, retrieval, perplexity",
    load: async () => (await import("./evaluate.ts")).defineEvaluate,
  },
  {
    name: "curate",
    summary: "build a dataset of images and descriptions",
    load: async () => (await import("./curate.ts")).defineCurate,
  },
  {
    name: "demo",
    summary: "describe the example images",
    load: async () => (await import("./demo.ts")).defineDemo,
  },
];

/**
 * Runs the command line, for example `run(["describe", "cat.jpg"], process)`.
 * @returns the exit code: 0 for success, 1 for a failure, 2 for wrong usage, 130 when interrupted
 */
export async function run(args: readonly string[], io: CommandIo): Promise<number> {
  const context = new CommandContext(io);
  const program = createProgram(context);
  try {
    // `help COMMAND` would show the help of a command that is not loaded yet.
    const [first, ...names] = args;
    await program.parseAsync(first === "help" && names.length > 0 ? [...names, "--help"] : args, { from: "user" });
    return context.exitCode;
  } catch (error) {
    return report(error, context, Boolean(program.opts().verbose));
  }
}

function createProgram(context: CommandContext): Command {
  const program = new Command("minigpt4")
    .description("Chat about images with MiniGPT-4, and train such a model yourself.")
    .version(packageVersion(), "-V, --version", "print the version")
    .option("--verbose", "print the stack trace of an error (also MINIGPT4_DEBUG=1)")
    .showHelpAfterError("Run with --help for usage.")
    .exitOverride()
    .configureOutput({
      writeOut: (text) => context.stdout.write(text),
      writeErr: (text) => context.stderr.write(text),
    })
    .addHelpText(
      "after",
      `
Examples:
  minigpt4 demo
  minigpt4 describe cat.jpg
  minigpt4 chat cat.jpg
  minigpt4 serve
  minigpt4 COMMAND --help`,
    );
  addCommands(program, context, commands);
  return program;
}

/** Prints an error once. Returns the exit code. */
function report(error: unknown, context: CommandContext, verbose: boolean): number {
  // Thrown by an action, where commander does not print it.
  if (error instanceof InvalidArgumentError) {
    context.printError(`error: ${error.message}`);
    return exitCodes.usage;
  }
  // Commander has printed its own errors; help and version end as errors, too.
  if (error instanceof CommanderError) return error.exitCode === 0 ? exitCodes.success : exitCodes.usage;
  if (error instanceof Interrupted) return exitCodes.interrupted;
  const debug = verbose || context.env.MINIGPT4_DEBUG === "1";
  if (debug) context.printError(error instanceof Error ? (error.stack ?? error.message) : String(error));
  else context.printError(`error: ${describeError(error).split("\n").map(printable).join("\n")}`);
  return exitCodes.failure;
}

function packageVersion(): string {
  const { version } = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8"));
  return version;
}
